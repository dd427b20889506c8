//! Which addresses may be connected to.

use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Keeps connections to the public internet, and to what an administrator named beside it.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    allow: Vec<IpNet>,
}

impl Guard {
    /// A guard that also lets through what is in `allow`.
    #[must_use]
    pub const fn new(allow: Vec<IpNet>) -> Self {
        Self { allow }
    }

    /// Whether this address may be connected to. An IPv4 address inside an IPv6 one is judged as itself.
    #[must_use]
    pub fn permits(&self, address: IpAddr) -> bool {
        let meant = meant(address);
        let named = |net: &IpNet| net.contains(&address) || net.contains(&meant);
        self.allow.iter().any(named) || is_public(meant)
    }
}

/// The IPv4 address that an IPv6 one leads to: IPv4-mapped (RFC 4291), NAT64 (RFC 6052), 6to4 (RFC 3056).
fn meant(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let four = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match v6.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => four(high, low),
        [0x2002, high, low, ..] => four(high, low),
        _ => address,
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

/// Not in the IANA registry of special addresses (RFC 6890 and later).
fn is_public_v4(address: Ipv4Addr) -> bool {
    !matches!(
        address.octets(),
        [0 | 10 | 127, ..]              // this network, private, loopback
            | [100, 64..=127, ..]       // carrier-grade NAT
            | [169, 254, ..]            // link-local: where clouds have their metadata services
            | [172, 16..=31, ..]        // private
            | [192, 0, 0 | 2, _]        // protocol assignments, documentation
            | [192, 88, 99, _]          // 6to4 relays
            | [192, 168, ..]            // private
            | [198, 18..=19, ..]        // benchmarks
            | [198, 51, 100, _]         // documentation
            | [203, 0, 113, _]          // documentation
            | [224..=255, ..] // multicast, reserved, broadcast
    )
}

/// In the part of IPv6 that is given out, and not special there.
fn is_public_v6(address: Ipv6Addr) -> bool {
    match address.segments() {
        // Protocol assignments with Teredo, documentation twice.
        [0x2001, 0..=0x01ff, ..] | [0x2001, 0x0db8, ..] | [0x3fff, 0..=0x0fff, ..] => false,
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(allow: &str, address: &str) -> bool {
        let allow = allow.split(' ').filter(|net| !net.is_empty()).map(|net| net.parse().unwrap()).collect();
        Guard::new(allow).permits(address.parse().unwrap())
    }

    #[test]
    fn attack_57_and_58_only_public_addresses_are_connected_to() {
        for public in ["1.1.1.1", "100.63.255.255", "172.32.0.1", "192.0.1.1", "2606:4700::1111"] {
            assert!(permits("", public), "{public}");
        }
        for special in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.0.3",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "fe80::1",
            "fec0::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "100::1",
            "2001:db8::1",
            "2001::1",
            "3fff::1",
            "64:ff9b:1::1",
            "5f00::1",
        ] {
            assert!(!permits("", special), "{special}");
        }
    }

    #[test]
    fn attack_57_and_58_an_address_inside_another_is_judged_as_itself() {
        for hidden in
            ["::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "::ffff:10.0.0.1", "2002:a00:1::1"]
        {
            assert!(!permits("", hidden), "{hidden}");
        }
        assert!(permits("", "64:ff9b::101:101") && permits("", "::ffff:1.1.1.1"));
        assert!(permits("127.0.0.0/8", "::ffff:127.0.0.1"));
    }

    #[test]
    fn what_an_administrator_names_is_let_through_and_no_more() {
        assert!(permits("10.20.0.0/16 fd00::/8", "10.20.3.4") && permits("10.20.0.0/16 fd00::/8", "fd00::1"));
        assert!(!permits("10.20.0.0/16", "10.21.0.1"));
    }
}
