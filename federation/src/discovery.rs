//! From a server's name to where it is reached.
//!
//! <https://spec.matrix.org/latest/server-server-api/#resolving-server-names>

use crate::connector::{Connector, read};
use hickory_resolver::{TokioResolver, proto::rr::RData};
use quick_cache::sync::Cache;
use reqwest::Url;
use ruma::{OwnedServerName, ServerName};
use serde::Deserialize;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Servers whose place is remembered.
const REMEMBERED: usize = 10_000;
/// How long what a well-known file says holds if it does not say, and at most (specification: 24 and 48 hours).
const WELL_KNOWN: Duration = Duration::from_secs(24 * 3600);
/// See [`WELL_KNOWN`].
const WELL_KNOWN_MOST: Duration = Duration::from_secs(48 * 3600);
/// How long a place holds that rests on a missing well-known file (specification: one hour) or on DNS.
const SHORT: Duration = Duration::from_secs(3600);
/// How long a place holds that may be due to a failure.
const FAILED: Duration = Duration::from_secs(300);
/// Redirects followed to a well-known file.
const REDIRECTS: usize = 5;
/// A well-known file, bytes.
const FILE_BYTES: usize = 50 << 10;
/// How long a well-known file is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// The port of servers that do not say.
const PORT: u16 = 8448;

/// Where a server is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The host whose certificate the server has, and the port: the authority of the URL.
    pub authority: String,
    /// What the `Host` header says.
    pub host: String,
}

/// Finds places.
#[derive(Debug)]
pub(crate) struct Discovery {
    connector: Connector,
    dns: Option<TokioResolver>,
    known: Cache<OwnedServerName, (Arc<Place>, Instant)>,
}

#[derive(Deserialize)]
struct WellKnown {
    #[serde(rename = "m.server")]
    server: OwnedServerName,
}

impl Discovery {
    pub(crate) fn new(connector: Connector) -> Self {
        let dns = TokioResolver::builder_tokio().and_then(|builder| builder.build());
        let dns = dns.inspect_err(|error| tracing::warn!(%error, "SRV records are not looked up")).ok();
        Self { connector, dns, known: Cache::new(REMEMBERED) }
    }

    /// Where `server` is reached.
    pub(crate) async fn find(&self, server: &ServerName) -> Arc<Place> {
        if let Some((place, until)) = self.known.get(server)
            && Instant::now() < until
        {
            return place;
        }
        let (place, holds) = self.resolve(server).await;
        let place = Arc::new(place);
        self.known.insert(server.to_owned(), (place.clone(), Instant::now() + holds));
        place
    }

    /// What was found is not true any more, as it seems.
    pub(crate) fn forget(&self, server: &ServerName) {
        self.known.remove(server);
    }

    async fn resolve(&self, server: &ServerName) -> (Place, Duration) {
        if let Some(place) = literal(server) {
            return (place, WELL_KNOWN_MOST);
        }
        let (delegated, holds) = match self.well_known(server.host()).await {
            Ok(Some((delegated, holds))) => (delegated, holds),
            Ok(None) => (server.to_owned(), SHORT),
            Err(()) => (server.to_owned(), FAILED),
        };
        if let Some(place) = literal(&delegated) {
            return (place, holds);
        }
        let host = delegated.host();
        for service in ["_matrix-fed._tcp", "_matrix._tcp"] {
            if let Some((target, port)) = self.srv(service, host).await {
                self.connector.alias(host, Some(&target));
                let place = Place { authority: format!("{host}:{port}"), host: host.to_owned() };
                return (place, holds.min(SHORT));
            }
        }
        self.connector.alias(host, None);
        (Place { authority: format!("{host}:{PORT}"), host: host.to_owned() }, holds)
    }

    /// What the well-known file of a host delegates to, and for how long; nothing if there is no such file.
    async fn well_known(&self, host: &str) -> Result<Option<(OwnedServerName, Duration)>, ()> {
        let mut url = Url::parse(&format!("https://{host}/.well-known/matrix/server")).map_err(|_| ())?;
        for _ in 0..=REDIRECTS {
            let request = self.connector.request(http::Method::GET, url.clone()).build().map_err(|_| ())?;
            let response = self.connector.send(request, PATIENCE).await.map_err(|_| ())?;
            let status = response.status();
            if status.is_redirection() {
                let target = response.headers().get(http::header::LOCATION).and_then(|to| to.to_str().ok());
                url = target.and_then(|to| url.join(to).ok()).ok_or(())?;
                if url.scheme() != "https" {
                    return Err(());
                }
                continue;
            }
            if status.is_server_error() {
                return Err(());
            }
            if !status.is_success() {
                return Ok(None);
            }
            let holds = holds_for(response.headers());
            let body = read(response, FILE_BYTES, PATIENCE).await.map_err(|_| ())?;
            // A file that makes no sense delegates nothing.
            let file: Option<WellKnown> = serde_json::from_slice(&body).ok();
            return Ok(file.map(|file| (file.server, holds)));
        }
        Err(())
    }

    async fn srv(&self, service: &str, host: &str) -> Option<(String, u16)> {
        let found = self.dns.as_ref()?.srv_lookup(format!("{service}.{host}.")).await.ok()?;
        let mut records: Vec<_> = found
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::SRV(srv) => Some(srv),
                _ => None,
            })
            .collect();
        records.sort_by_key(|srv| (srv.priority, std::cmp::Reverse(srv.weight)));
        let first = records.first()?;
        let target = first.target.to_ascii();
        let target = target.trim_end_matches('.');
        // A lone dot says that the service is not there.
        (!target.is_empty()).then(|| (target.to_owned(), first.port))
    }
}

/// The place of a name that says itself where it is: an IP literal, or with a port.
fn literal(server: &ServerName) -> Option<Place> {
    if server.is_ip_literal() || server.port().is_some() {
        let port = server.port().unwrap_or(PORT);
        return Some(Place {
            authority: format!("{}:{port}", server.host()),
            host: server.as_str().to_owned(),
        });
    }
    None
}

/// How long an answer may be kept (RFC 9111, as far as the specification asks for it).
fn holds_for(headers: &http::HeaderMap) -> Duration {
    let control = headers.get(http::header::CACHE_CONTROL).and_then(|value| value.to_str().ok());
    let mut holds = WELL_KNOWN;
    for directive in control.unwrap_or_default().split(',').map(str::trim) {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        match name.to_ascii_lowercase().as_str() {
            "no-store" | "no-cache" => holds = FAILED,
            "max-age" => {
                if let Ok(seconds) = value.trim_matches('"').parse::<u64>() {
                    holds = Duration::from_secs(seconds);
                }
            }
            _ => {}
        }
    }
    holds.clamp(FAILED, WELL_KNOWN_MOST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ruma::server_name;

    #[test]
    fn names_with_an_address_or_a_port_say_where_they_are() {
        let place = |authority: &str, host: &str| {
            Some(Place { authority: authority.to_owned(), host: host.to_owned() })
        };
        assert_eq!(literal(server_name!("1.2.3.4")), place("1.2.3.4:8448", "1.2.3.4"));
        assert_eq!(literal(server_name!("1.2.3.4:99")), place("1.2.3.4:99", "1.2.3.4:99"));
        assert_eq!(literal(server_name!("[2001::1]")), place("[2001::1]:8448", "[2001::1]"));
        assert_eq!(literal(server_name!("example.org:80")), place("example.org:80", "example.org:80"));
        assert_eq!(literal(server_name!("example.org")), None);
    }

    #[test]
    fn what_is_cached_holds_within_bounds() {
        let with = |value: &str| {
            let mut headers = http::HeaderMap::new();
            headers.insert(http::header::CACHE_CONTROL, value.parse().unwrap());
            holds_for(&headers)
        };
        assert_eq!(holds_for(&http::HeaderMap::new()), WELL_KNOWN);
        assert_eq!(with("max-age=7200"), Duration::from_secs(7200));
        assert_eq!(with("public, max-age=99999999"), WELL_KNOWN_MOST);
        assert_eq!(with("max-age=0"), FAILED);
        assert_eq!(with("no-store"), FAILED);
        assert_eq!(with("max-age=x"), WELL_KNOWN);
    }
}
