//! Where a request comes from, behind proxies that are trusted and others that are not.

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The client's address: the last one in `X-Forwarded-For` that no trusted proxy stands for, if the connection is
/// from a trusted proxy; else the connection's.
pub fn client_address(trusted: &[IpNet], connection: SocketAddr, headers: &HeaderMap) -> SocketAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|net| net.contains(&address));
    if !is_trusted(connection.ip()) {
        return connection;
    }
    let hops = headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
    let addresses: Vec<IpAddr> =
        hops.flat_map(|hop| hop.split(',')).filter_map(|hop| hop.trim().parse().ok()).collect();
    addresses
        .iter()
        .rev()
        .find(|address| !is_trusted(**address))
        .or(addresses.first())
        .map_or(connection, |address| SocketAddr::new(*address, connection.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(connection: &str, forwarded: &str) -> String {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
        let mut headers = HeaderMap::new();
        headers.insert(FORWARDED_FOR, forwarded.parse().unwrap());
        client_address(&trusted, connection.parse().unwrap(), &headers).ip().to_string()
    }

    #[test]
    fn a_stranger_cannot_claim_another_address() {
        assert_eq!(seen("192.0.2.1:5", "198.51.100.7"), "192.0.2.1");
    }

    #[test]
    fn behind_trusted_proxies_the_nearest_untrusted_hop_counts() {
        assert_eq!(seen("10.0.0.1:5", "203.0.113.9, 198.51.100.7, 10.0.0.2"), "198.51.100.7");
    }
}
