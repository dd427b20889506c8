//! The one way out: every connection to another machine is made here.
//!
//! Addresses that are not for the public (loopback, private networks and the like) are refused unless the configuration
//! allows them. The decision is made on the very address that is connected to, after names were resolved, so that a name
//! cannot mean one address when it is checked and another when it is used.

use crate::{Error, PeerError};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use ipnet::IpNet;
use parking_lot::RwLock;
use postern_config::Federation as Settings;
use reqwest::{
    Certificate, Client, Identity, Request, Response, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect::Policy,
};
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

/// Idle connections kept to one server.
const IDLE_CONNECTIONS: usize = 4;
/// How long an idle connection is kept.
const IDLE: Duration = Duration::from_secs(60);
/// Names that stand for another host's addresses (SRV records); beyond that the oldest answers are asked for again.
const ALIASES: usize = 10_000;

/// Makes connections. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Connector {
    client: Client,
    gate: Arc<Gate>,
}

/// Decides which addresses may be connected to, and knows which names stand for others.
#[derive(Debug)]
struct Gate {
    allowed: Vec<IpNet>,
    aliases: RwLock<HashMap<String, String>>,
}

impl Connector {
    /// A connector as configured.
    ///
    /// # Errors
    /// [`Error::Setup`] if a certificate cannot be used.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let gate = Arc::new(Gate {
            allowed: settings.allow_addresses.clone(),
            aliases: RwLock::new(HashMap::new()),
        });
        let mut builder = Client::builder()
            .user_agent(concat!("Postern/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .no_proxy()
            .referer(false)
            .connect_timeout(Duration::from_millis(settings.connect_timeout_ms))
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .tcp_nodelay(true)
            .dns_resolver(Guarded(gate.clone()));
        let setup = |what: &std::path::Path, error: &dyn std::fmt::Display| {
            Error::Setup(format!("{}: {error}", what.display()))
        };
        if let Some(path) = &settings.certificate_authorities_file {
            let pem = std::fs::read(path).map_err(|error| setup(path, &error))?;
            builder = builder
                .tls_certs_merge(Certificate::from_pem_bundle(&pem).map_err(|error| setup(path, &error))?);
        }
        if let (Some(certificate), Some(key)) = (&settings.client_certificate_file, &settings.client_key_file)
        {
            let mut pem = std::fs::read(certificate).map_err(|error| setup(certificate, &error))?;
            pem.extend(std::fs::read(key).map_err(|error| setup(key, &error))?);
            builder = builder.identity(Identity::from_pem(&pem).map_err(|error| setup(certificate, &error))?);
        }
        let client = builder.build().map_err(|error| Error::Setup(error.to_string()))?;
        Ok(Self { client, gate })
    }

    /// From now on `host` is reached at the addresses of `target` (an SRV record says so).
    pub(crate) fn alias(&self, host: &str, target: Option<&str>) {
        let mut aliases = self.gate.aliases.write();
        match target {
            Some(target) => {
                if aliases.len() >= ALIASES {
                    aliases.clear();
                }
                aliases.insert(host.to_ascii_lowercase(), target.to_owned());
            }
            None => {
                aliases.remove(&host.to_ascii_lowercase());
            }
        }
    }

    /// A request to build and send.
    pub(crate) fn request(&self, method: http::Method, url: Url) -> reqwest::RequestBuilder {
        self.client.request(method, url)
    }

    /// Sends a request; the answer's head is awaited for at most `patience`. Redirects are not followed.
    ///
    /// # Errors
    /// [`PeerError::Unreachable`].
    pub(crate) async fn send(&self, request: Request, patience: Duration) -> Result<Response, PeerError> {
        // A literal address is not resolved, so it is looked at here.
        let literal = match request.url().host() {
            Some(url::Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(url::Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            _ => None,
        };
        if literal.is_some_and(|address| !self.gate.allows(address)) {
            return Err(PeerError::Unreachable("the address is not one to connect to".to_owned()));
        }
        match tokio::time::timeout(patience, self.client.execute(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(PeerError::Unreachable(because(&error))),
            Err(_) => Err(PeerError::Unreachable("it did not answer in time".to_owned())),
        }
    }
}

/// An error with its causes, which say what happened, and without the address asked for.
fn because(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    if text.is_empty() { error.to_string() } else { text }
}

/// The body of an answer, at most `limit` bytes, within `patience`.
///
/// # Errors
/// [`PeerError::BadAnswer`] if it is larger, [`PeerError::Unreachable`] if it breaks off.
pub(crate) async fn read(response: Response, limit: usize, patience: Duration) -> Result<Bytes, PeerError> {
    let too_large = || PeerError::BadAnswer(format!("the answer is larger than {limit} bytes"));
    if response.content_length().is_some_and(|length| length > limit as u64) {
        return Err(too_large());
    }
    let reading = async {
        let mut body = BytesMut::new();
        let mut stream = response.bytes_stream();
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(|error| PeerError::Unreachable(because(&error)))?;
            if body.len() + piece.len() > limit {
                return Err(too_large());
            }
            body.extend_from_slice(&piece);
        }
        Ok(body.freeze())
    };
    tokio::time::timeout(patience, reading)
        .await
        .unwrap_or_else(|_| Err(PeerError::Unreachable("the answer took too long".to_owned())))
}

impl Gate {
    fn allows(&self, address: IpAddr) -> bool {
        self.allowed.iter().any(|net| net.contains(&address)) || is_public(address)
    }
}

struct Guarded(Arc<Gate>);

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let gate = self.0.clone();
        Box::pin(async move {
            let asked = gate.aliases.read().get(&name.as_str().to_ascii_lowercase()).cloned();
            let host = asked.unwrap_or_else(|| name.as_str().to_owned());
            let found = tokio::net::lookup_host((host.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> = found.filter(|address| gate.allows(address.ip())).collect();
            if allowed.is_empty() {
                return Err("the name has no address to connect to".into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// Whether an address is one of the public Internet's (IANA special-purpose address registries).
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_broadcast()
        || address.is_documentation()
        || address.is_multicast()
        || a == 0
        || a >= 240
        // Shared address space of carriers, benchmarks, protocol assignments, the retired 6to4 relays.
        || (a == 100 && (64..128).contains(&b))
        || (a == 198 && (b == 18 || b == 19))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let embedded = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        // Forms that carry an IPv4 address: mapped, translated (NAT64), 6to4.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        [0x2002, high, low, ..] => embedded(high, low),
        // Local NAT64, documentation, Teredo and other protocol assignments, ORCHID.
        [0x64, 0xff9b, 1, ..] | [0x2001, 0x0db8, ..] | [0x3fff, ..] => false,
        [0x2001, second, ..] if second < 0x200 => false,
        // Only 2000::/3 is given out.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_are_not_public_are_known() {
        for address in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "198.18.0.1",
            "192.0.0.8",
            "192.88.99.1",
            "240.0.0.1",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2002:c0a8:101::1",
            "2001:db8::1",
            "2001::1",
            "3fff::1",
            "fec0::1",
            "4000::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        for address in [
            "1.1.1.1",
            "193.99.144.80",
            "2606:4700::1111",
            "2a00:1450::1",
            "64:ff9b::101:101",
            "2002:101:101::1",
        ] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }
}
