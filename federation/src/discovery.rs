//! From the name of a server to where it is.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#resolving-server-names>
//!
//! It has two halves. [`Discovery::authority`] finds out under which name a server is reached: its own, or the one it
//! delegates to in `/.well-known/matrix/server`. That name, with its port if it has one, goes into the `Host` header, and
//! the certificate has to be for it. [`places`] says where that name is: an IP literal is its own address; with a port,
//! a host's addresses; without one, what SRV records say, else port 8448. Since the second half depends on the
//! first one's result only, connections are shared by all servers that delegate to one name.

use crate::dns::{Dns, in_order};
use futures::future::BoxFuture;
use http::{HeaderMap, StatusCode, header};
use quick_cache::sync::Cache;
use ruma::{OwnedServerName, ServerName};
use serde::Deserialize;
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::Mutex, time::Instant};

/// The port of servers whose name says none.
const DEFAULT_PORT: u16 = 8448;
/// How long an answer holds that does not say it: recommended by the specification.
const HOLDS: Duration = Duration::from_secs(24 * 3600);
/// How long any answer holds at most: recommended by the specification.
const HOLDS_AT_MOST: Duration = Duration::from_secs(48 * 3600);
/// How long any answer holds at least, so that not every request needs another one before it.
const HOLDS_AT_LEAST: Duration = Duration::from_secs(300);
/// When a failed look is repeated at first; then after twice as long each time.
const FAILED: Duration = Duration::from_secs(60);
/// When a failed look is repeated at the latest: recommended by the specification.
const FAILED_AT_MOST: Duration = Duration::from_secs(3600);
/// Servers whose delegation is remembered.
const REMEMBERED: usize = 20_000;
/// Addresses of one server that are tried.
const ADDRESSES: usize = 8;
/// How long services are looked up: where there is no answer, none is taken to be there.
const SERVICES_PATIENCE: Duration = Duration::from_millis(2_500);

/// A host with an optional port: a server name in its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    name: OwnedServerName,
}

impl Authority {
    /// As it stands in the `Host` header.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.name.as_str()
    }
}

/// What `/.well-known/matrix/server` of a host said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delegated {
    /// The name to go on with.
    pub to: OwnedServerName,
    /// For how long.
    pub holds: Duration,
}

/// Fetches `https://{host}/.well-known/matrix/server`.
pub trait WellKnown: Send + Sync + fmt::Debug {
    /// What it says; nothing if the answer is none or makes no sense.
    fn fetch<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Option<Delegated>>;
}

#[derive(Deserialize)]
struct Body {
    #[serde(rename = "m.server")]
    server: String,
}

/// Reads an answer of `/.well-known/matrix/server`, whatever its content type.
#[must_use]
pub fn read(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Option<Delegated> {
    if status != StatusCode::OK {
        return None;
    }
    let body: Body = serde_json::from_slice(body).ok()?;
    let to = ServerName::parse(body.server).ok()?;
    let holds = holds(headers).unwrap_or(HOLDS).clamp(HOLDS_AT_LEAST, HOLDS_AT_MOST);
    Some(Delegated { to, holds })
}

/// What `Cache-Control` says (RFC 9111).
fn holds(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let mut found = None;
    for directive in values.flat_map(|value| value.split(',')) {
        let (name, value) = directive.trim().split_once('=').unwrap_or((directive.trim(), ""));
        if name.eq_ignore_ascii_case("no-store") || name.eq_ignore_ascii_case("no-cache") {
            return Some(Duration::ZERO);
        }
        if name.eq_ignore_ascii_case("max-age") {
            found = value.trim_matches('"').parse().ok().map(Duration::from_secs);
        }
    }
    found
}

/// What is remembered about a host.
#[derive(Debug, Default)]
struct Memory {
    /// The latest valid answer. It stands in when later looks fail, since a server that is down for an hour has
    /// not moved.
    to: Option<OwnedServerName>,
    /// When to look again.
    until: Option<Instant>,
    failures: u32,
}

impl Memory {
    fn is_due(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until <= now)
    }

    fn learn(&mut self, said: Option<Delegated>, now: Instant) {
        if let Some(Delegated { to, holds }) = said {
            *self = Self { to: Some(to), until: Some(now + holds), failures: 0 };
            return;
        }
        let pause = FAILED.saturating_mul(1 << self.failures.min(16)).min(FAILED_AT_MOST);
        self.until = Some(now + pause);
        self.failures = self.failures.saturating_add(1);
        // One that fails for good has taken the file away.
        if pause == FAILED_AT_MOST {
            self.to = None;
        }
    }
}

/// Delegations of servers.
#[derive(Debug)]
pub struct Discovery {
    well_known: Arc<dyn WellKnown>,
    /// A lock for each host, so that it is asked once at a time.
    memory: Cache<String, Arc<Mutex<Memory>>>,
}

impl Discovery {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(well_known: Arc<dyn WellKnown>) -> Self {
        Self { well_known, memory: Cache::new(REMEMBERED) }
    }

    /// Under which name a server is reached: steps 1 to 3 of the specification.
    pub async fn authority(&self, server: &ServerName) -> Authority {
        // Steps 1 and 2: an address or a port leaves nothing to ask.
        if server.is_ip_literal() || server.port().is_some() {
            return Authority { name: server.to_owned() };
        }
        let host = server.host();
        let memory =
            self.memory.get_or_insert_with(host, || Ok::<_, std::convert::Infallible>(Arc::default()));
        let Ok(memory) = memory;
        let mut memory = memory.lock().await;
        if memory.is_due(Instant::now()) {
            let said = self.well_known.fetch(host).await;
            memory.learn(said, Instant::now());
        }
        Authority { name: memory.to.clone().unwrap_or_else(|| server.to_owned()) }
    }

    /// A server was heard of: if it could not be asked before, it is asked again.
    pub fn heard_of(&self, server: &ServerName) {
        if let Some(memory) = self.memory.get(server.host())
            && let Ok(mut memory) = memory.try_lock()
            && memory.failures > 0
        {
            memory.until = None;
        }
    }
}

/// Where a name is: the steps after delegation, the same for a name and for what it delegates to. The addresses are in
/// the order in which they should be tried.
///
/// # Errors
/// Why there is no address.
pub async fn places(dns: &dyn Dns, authority: &ServerName) -> Result<Vec<SocketAddr>, String> {
    let host = authority.host();
    let port = authority.port();
    if let Some(address) = literal(host) {
        return Ok(vec![SocketAddr::new(address, port.unwrap_or(DEFAULT_PORT))]);
    }
    if let Some(port) = port {
        return addresses(dns, host, port).await;
    }
    for service in ["_matrix-fed", "_matrix"] {
        let name = format!("{service}._tcp.{host}");
        let found = tokio::time::timeout(SERVICES_PATIENCE, dns.services(&name)).await.unwrap_or_default();
        if found.is_empty() {
            continue;
        }
        let mut places = Vec::new();
        let mut why = format!("{name} names no host");
        // A target without name says that the service is not offered (RFC 2782).
        for service in in_order(found).into_iter().filter(|service| !service.host.is_empty()) {
            match addresses(dns, &service.host, service.port).await {
                Ok(more) => places.extend(more),
                Err(error) => why = error,
            }
            if places.len() >= ADDRESSES {
                break;
            }
        }
        places.truncate(ADDRESSES);
        return if places.is_empty() { Err(why) } else { Ok(places) };
    }
    addresses(dns, host, DEFAULT_PORT).await
}

/// The address a host part of a server name is, if it is one.
#[must_use]
pub fn literal(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// The addresses of a host with this port, both families in turn.
///
/// # Errors
/// Why there is none.
pub async fn addresses(dns: &dyn Dns, host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let found = dns.addresses(host).await.map_err(|error| format!("{host} cannot be looked up: {error}"))?;
    let (six, four): (Vec<_>, Vec<_>) = found.into_iter().partition(IpAddr::is_ipv6);
    let (mut six, mut four) = (six.into_iter(), four.into_iter());
    let mut places = Vec::new();
    loop {
        let pair = [six.next(), four.next()];
        if pair == [None, None] || places.len() >= ADDRESSES {
            break;
        }
        places.extend(pair.into_iter().flatten().map(|address| SocketAddr::new(address, port)));
    }
    if places.is_empty() { Err(format!("{host} has no address")) } else { Ok(places) }
}

#[cfg(test)]
mod tests;
