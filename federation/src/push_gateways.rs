//! The way to push gateways. Where they are is said by users, so it is the one way out, with addresses of its own that may be
//! connected to.

use crate::{
    Error,
    address::Guard,
    connector::{Connector, Whither},
    dns::System,
    trust,
};
use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::{Request, header};
use postern_config::{Config, ServerPattern};
use postern_push::{Gateways, Reached};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
use url::Url;

/// The way to push gateways.
#[derive(Debug)]
pub(crate) struct PushGateways {
    connector: Connector,
    allowed: Vec<ServerPattern>,
    patience: Duration,
}

impl PushGateways {
    /// As configured; the certificates are those that are believed of other servers.
    ///
    /// # Errors
    /// [`Error::Setup`] if the configuration names certificates that cannot be used.
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        let dns = Arc::new(System::new().map_err(Error::Setup)?);
        let guard = Guard::new(config.push.allow_addresses.clone());
        let connect_timeout = Duration::from_millis(config.federation.connect_timeout_ms);
        Ok(Self {
            connector: Connector::new(dns, guard, trust::anonymous(&config.federation)?, connect_timeout),
            allowed: config.push.allowed_gateways.clone(),
            patience: Duration::from_millis(config.push.request_timeout_ms),
        })
    }

    /// Reads the certificate authorities again.
    ///
    /// # Errors
    /// [`Error::Setup`] if a file cannot be used: all stays as it was.
    pub(crate) fn read_certificates(&self, config: &postern_config::Federation) -> Result<(), Error> {
        self.connector.trust(trust::anonymous(config)?);
        Ok(())
    }

    async fn post(&self, url: &Url, body: Bytes, bound: usize) -> Reached {
        let host = url.host_str().unwrap_or_default();
        if !self.allowed.is_empty() && !self.allowed.iter().any(|one| one.matches(host)) {
            return Err(format!("push.allowed_gateways does not have {host}"));
        }
        let request = Request::post(url.as_str())
            .header(header::CONTENT_TYPE, "application/json")
            .body(body)
            .map_err(|error| error.to_string())?;
        let deadline = Instant::now() + self.patience;
        let answer = self.connector.ask(&Whither::Web, request, deadline, bound).await;
        let (head, body) = answer.map_err(|error| error.to_string())?.into_parts();
        Ok((head.status, body))
    }
}

impl Gateways for PushGateways {
    fn post<'a>(&'a self, url: &'a Url, body: Bytes, bound: usize) -> BoxFuture<'a, Reached> {
        self.post(url, body, bound).boxed()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn gateways(allowed: &str) -> PushGateways {
        let config = Config::with([("push.allowed_gateways", allowed)]).unwrap();
        PushGateways::new(&config).unwrap()
    }

    async fn why_not(gateways: &PushGateways, url: &str) -> String {
        gateways.post(&Url::parse(url).unwrap(), Bytes::new(), 1024).await.unwrap_err()
    }

    #[tokio::test]
    async fn attack_58_a_push_gateway_is_not_sought_on_the_inside() {
        let gateways = gateways("*");
        for host in ["127.0.0.1", "localhost", "[::1]", "169.254.169.254", "10.0.0.1", "2130706433", "0x7f.1"]
        {
            let why = why_not(&gateways, &format!("https://{host}/_matrix/push/v1/notify")).await;
            assert!(why.contains("private or special"), "{host}: {why}");
        }
        let why = why_not(&gateways, "http://1.1.1.1/_matrix/push/v1/notify").await;
        assert!(why.contains("only https"), "{why}");
    }

    #[tokio::test]
    async fn push_gateways_are_only_those_that_are_allowed() {
        let gateways = gateways("push.example.org");
        let why = why_not(&gateways, "https://elsewhere.example.org/_matrix/push/v1/notify").await;
        assert!(why.contains("push.allowed_gateways"), "{why}");
    }
}
