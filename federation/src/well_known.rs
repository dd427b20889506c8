//! Fetching `/.well-known/matrix/server`.

use crate::{
    connector::{Connector, Whither},
    discovery::{self, Delegated, WellKnown},
};
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use http::{Request, header};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
use url::Url;

/// Redirects that are followed: enough for `http` habits of large sites, and no loop.
const REDIRECTS: usize = 5;
/// Largest answer, bytes: one short name stands in it.
const BYTES: usize = 50 << 10;
/// How long all of it may take. It stands before every first request to a server.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks over the web.
#[derive(Debug)]
pub struct OverWeb(pub Arc<Connector>);

impl WellKnown for OverWeb {
    fn fetch<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Option<Delegated>> {
        self.follow(host).boxed()
    }
}

impl OverWeb {
    async fn follow(&self, host: &str) -> Option<Delegated> {
        let deadline = Instant::now() + PATIENCE;
        let mut url = Url::parse(&format!("https://{host}/.well-known/matrix/server")).ok()?;
        for _ in 0..=REDIRECTS {
            let request = Request::get(url.as_str()).body(Bytes::new()).ok()?;
            let answer = match self.0.ask(&Whither::Web, request, deadline, BYTES).await {
                Ok(answer) => answer,
                Err(error) => {
                    tracing::debug!(host, %error, "no well-known");
                    return None;
                }
            };
            match redirected(&url, answer.status(), answer.headers()) {
                Some(next) => url = next,
                None => return discovery::read(answer.status(), answer.headers(), answer.body()),
            }
        }
        tracing::debug!(host, "its well-known is redirected too often");
        None
    }
}

/// Where an answer of `url` sends on to.
pub(crate) fn redirected(url: &Url, status: http::StatusCode, headers: &http::HeaderMap) -> Option<Url> {
    if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = headers.get(header::LOCATION)?.to_str().ok()?;
    let mut next = url.join(location).ok()?;
    next.set_fragment(None);
    (next.scheme() == "https").then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, HeaderValue, StatusCode};

    #[test]
    fn redirects_lead_to_https_only() {
        let to = |status: u16, location: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::LOCATION, HeaderValue::from_static(location));
            let url = Url::parse("https://a.test/x/y").unwrap();
            redirected(&url, StatusCode::from_u16(status).unwrap(), &headers).map(String::from)
        };
        assert_eq!(to(302, "/z#f").as_deref(), Some("https://a.test/z"));
        assert_eq!(to(308, "https://b.test/z").as_deref(), Some("https://b.test/z"));
        assert_eq!(to(301, "http://b.test/z"), None);
        assert_eq!(to(200, "/z"), None);
    }
}

#[cfg(test)]
mod attacks;
