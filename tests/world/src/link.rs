//! HTTP from a test's thread: kept-open connections shared by all tests of a program.

use crate::Answer;
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use std::{sync::OnceLock, time::Duration};
use tokio::runtime::Runtime;

/// Longest time for one answer; a long poll ends far earlier.
const PATIENCE: Duration = Duration::from_secs(90);
/// Largest answer, bytes.
const MAX_ANSWER: usize = 256 << 20;

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The request is none.
    #[error("request: {0}")]
    Request(#[from] http::Error),
    /// The connection broke, or there was none to be had.
    #[error("connection: {0}")]
    Connection(#[from] hyper_util::client::legacy::Error),
    /// The answer broke off or is too large.
    #[error("answer: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    /// The server took too long.
    #[error("no answer within {PATIENCE:?}")]
    Late,
}

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
    })
}

/// Connections to one server.
#[derive(Debug, Clone)]
pub struct Link {
    client: Client<HttpConnector, Full<Bytes>>,
    base: String,
}

impl Link {
    /// To `address`, a host and port.
    #[must_use]
    pub fn to(address: &str) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(5))
            .build(connector);
        Self { client, base: format!("http://{address}") }
    }

    /// Sends a request as it is and waits for the answer, whatever it is. Nothing is checked.
    ///
    /// # Errors
    /// There was no answer.
    pub fn send(
        &self,
        method: &Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer, Broken> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into()))?;
        let exchange = async {
            let (head, body) = self.client.request(request).await?.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| {
                let large = error.downcast_ref::<LengthLimitError>().is_some();
                Broken::Body(if large { "too large".into() } else { error })
            })?;
            Ok(Answer::new(format!("{method} {path}"), head.status, head.headers, body.to_bytes()))
        };
        runtime()
            .block_on(async { tokio::time::timeout(PATIENCE, exchange).await.map_err(|_| Broken::Late)? })
    }
}
