//! Asking other servers: signed requests, bounded answers, and patience with those that fail.

use crate::{
    Error, PeerError,
    connector::{Connector, read},
    discovery::Discovery,
};
use bytes::Bytes;
use dashmap::DashMap;
use futures::{Stream, StreamExt, stream::BoxStream};
use http::{HeaderMap, Method, StatusCode, header};
use postern_config::Config;
use postern_rooms::{Rooms, glob::Glob};
use rand::RngExt;
use reqwest::Url;
use ruma::{CanonicalJsonValue, OwnedServerName, ServerName};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// An answer as JSON, bytes: the state of a large room is one.
const ANSWER_BYTES: usize = 512 << 20;
/// An answer that reports an error, bytes.
const ERROR_BYTES: usize = 64 << 10;
/// After the first failure a server is left alone for so long; twice as long after each further one.
const BACKOFF: Duration = Duration::from_millis(500);
/// And at most for so long.
const BACKOFF_MOST: Duration = Duration::from_secs(3600);
/// Servers whose failures are remembered; beyond that those that may be asked again are forgotten.
const FAILING: usize = 50_000;

/// The other servers.
#[derive(Debug)]
pub struct Peers {
    rooms: Arc<Rooms>,
    connector: Connector,
    discovery: Discovery,
    enabled: bool,
    allowed: Vec<Glob>,
    denied: Vec<Glob>,
    patience: Duration,
    failing: DashMap<OwnedServerName, Failing>,
}

#[derive(Debug, Clone, Copy)]
struct Failing {
    times: u32,
    until: Instant,
}

/// The head of an answer, and its body as it comes.
pub struct Opened {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: BoxStream<'static, Result<Bytes, PeerError>>,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").field("status", &self.status).finish_non_exhaustive()
    }
}

impl Peers {
    /// The way to other servers, as configured.
    ///
    /// # Errors
    /// [`Error::Setup`].
    pub fn new(config: &Config, rooms: Arc<Rooms>) -> Result<Self, Error> {
        let settings = &config.federation;
        let connector = Connector::new(settings)?;
        let globs = |patterns: &[String]| patterns.iter().map(|pattern| Glob::new(pattern)).collect();
        Ok(Self {
            rooms,
            discovery: Discovery::new(connector.clone()),
            connector,
            enabled: settings.enabled,
            allowed: globs(&settings.allowed_servers),
            denied: globs(&settings.denied_servers),
            patience: Duration::from_millis(settings.request_timeout_ms),
            failing: DashMap::new(),
        })
    }

    /// Whether this server has to do with another.
    #[must_use]
    pub fn allowed(&self, server: &ServerName) -> bool {
        let name = server.as_str();
        self.enabled
            && (self.allowed.is_empty() || self.allowed.iter().any(|glob| glob.matches(name)))
            && !self.denied.iter().any(|glob| glob.matches(name))
    }

    /// Makes connections to other machines.
    #[must_use]
    pub const fn connector(&self) -> &Connector {
        &self.connector
    }

    /// `GET` of `path` (with query, encoded), signed.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn get<A: DeserializeOwned>(&self, server: &ServerName, path: &str) -> Result<A, PeerError> {
        self.ask(server, Method::GET, path, None::<&()>, self.patience).await
    }

    /// `POST` of a body, signed.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn post<A: DeserializeOwned>(
        &self,
        server: &ServerName,
        path: &str,
        body: &impl Serialize,
    ) -> Result<A, PeerError> {
        self.ask(server, Method::POST, path, Some(body), self.patience).await
    }

    /// `PUT` of a body, signed.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn put<A: DeserializeOwned>(
        &self,
        server: &ServerName,
        path: &str,
        body: &impl Serialize,
    ) -> Result<A, PeerError> {
        self.ask(server, Method::PUT, path, Some(body), self.patience).await
    }

    /// A signed request whose JSON answer is awaited for at most `patience`, whole.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn ask<A: DeserializeOwned>(
        &self,
        server: &ServerName,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + ?Sized)>,
        patience: Duration,
    ) -> Result<A, PeerError> {
        let response = self.send(server, method, path, body, patience).await?;
        let status = response.status();
        let limit = if status.is_success() { ANSWER_BYTES } else { ERROR_BYTES };
        let bytes = read(response, limit, patience).await;
        if !status.is_success() {
            return Err(refusal(status, &bytes.unwrap_or_default()));
        }
        serde_json::from_slice(&bytes?).map_err(|error| PeerError::BadAnswer(error.to_string()))
    }

    /// A signed `GET` whose answer is taken as it comes; its head is awaited for at most `patience`.
    ///
    /// # Errors
    /// [`PeerError`]; an answer that reports an error is [`PeerError::Refused`].
    pub async fn open(
        &self,
        server: &ServerName,
        path: &str,
        patience: Duration,
    ) -> Result<Opened, PeerError> {
        let response = self.send(server, Method::GET, path, None::<&()>, patience).await?;
        opened(response, patience).await
    }

    /// The file at a URL that another server has named (specification: content repository, `Location`), unsigned.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn open_location(&self, url: &str, patience: Duration) -> Result<Opened, PeerError> {
        let url = Url::parse(url).map_err(|error| PeerError::BadAnswer(error.to_string()))?;
        if !matches!(url.scheme(), "https" | "http") {
            return Err(PeerError::BadAnswer("the location is no HTTP URL".to_owned()));
        }
        let request = self.connector.request(Method::GET, url).build();
        let request = request.map_err(|error| PeerError::BadAnswer(error.to_string()))?;
        opened(self.connector.send(request, patience).await?, patience).await
    }

    /// `GET` of a server's keys, which is not signed.
    pub(crate) async fn get_unsigned(&self, server: &ServerName, path: &str) -> Result<Bytes, PeerError> {
        self.check(server)?;
        let place = self.discovery.find(server).await;
        let url = Url::parse(&format!("https://{}{path}", place.authority))
            .map_err(|error| PeerError::Unreachable(error.to_string()))?;
        let request = self.connector.request(Method::GET, url).header(header::HOST, &place.host).build();
        let request = request.map_err(|error| PeerError::Unreachable(error.to_string()))?;
        let sent = self.connector.send(request, self.patience).await;
        let response = self.noted(server, sent)?;
        let status = response.status();
        let bytes = read(response, ERROR_BYTES * 4, self.patience).await?;
        if status.is_success() { Ok(bytes) } else { Err(refusal(status, &bytes)) }
    }

    async fn send(
        &self,
        server: &ServerName,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + ?Sized)>,
        patience: Duration,
    ) -> Result<reqwest::Response, PeerError> {
        self.check(server)?;
        let bad = |error: &dyn std::fmt::Display| PeerError::BadAnswer(format!("the request: {error}"));
        let body = body.map(serde_json::to_vec).transpose().map_err(|error| bad(&error))?;
        let content: Option<CanonicalJsonValue> =
            body.as_deref().map(serde_json::from_slice).transpose().map_err(|error| bad(&error))?;
        let place = self.discovery.find(server).await;
        let url = Url::parse(&format!("https://{}{path}", place.authority)).map_err(|error| bad(&error))?;
        // What is signed is what is sent: the URL may have been written anew.
        let uri =
            url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
        let authorization = self
            .rooms
            .keys()
            .sign_request(method.as_str(), &uri, server, content)
            .map_err(|error| bad(&error))?;
        let mut request = self
            .connector
            .request(method, url)
            .header(header::HOST, &place.host)
            .header(header::AUTHORIZATION, authorization);
        if let Some(body) = body {
            request = request.header(header::CONTENT_TYPE, "application/json").body(body);
        }
        let request = request.build().map_err(|error| bad(&error))?;
        let sent = self.connector.send(request, patience).await;
        if sent.is_err() {
            self.discovery.forget(server);
        }
        self.noted(server, sent)
    }

    /// Whether a server may be asked now.
    fn check(&self, server: &ServerName) -> Result<(), PeerError> {
        if !self.allowed(server) || server == self.rooms.server_name() {
            return Err(PeerError::NotAllowed(server.to_owned()));
        }
        if self.failing.get(server).is_some_and(|failing| Instant::now() < failing.until) {
            return Err(PeerError::BackingOff);
        }
        Ok(())
    }

    /// Remembers whether a server answered.
    fn noted<T>(&self, server: &ServerName, sent: Result<T, PeerError>) -> Result<T, PeerError> {
        match &sent {
            Ok(_) => self.alive(server),
            Err(_) => {
                if self.failing.len() >= FAILING {
                    let now = Instant::now();
                    self.failing.retain(|_, failing| failing.until > now);
                }
                let now = Instant::now();
                let mut failing =
                    self.failing.entry(server.to_owned()).or_insert(Failing { times: 0, until: now });
                let doubled = BACKOFF.saturating_mul(1 << failing.times.min(20)).min(BACKOFF_MOST);
                failing.times += 1;
                failing.until = now + doubled.mul_f64(rand::rng().random_range(0.75..1.25));
            }
        }
        sent
    }

    /// A server has been heard from: it may be asked again at once.
    pub fn alive(&self, server: &ServerName) {
        self.failing.remove(server);
    }
}

async fn opened(response: reqwest::Response, patience: Duration) -> Result<Opened, PeerError> {
    let (status, headers) = (response.status(), response.headers().clone());
    if !status.is_success() && !status.is_redirection() {
        let bytes = read(response, ERROR_BYTES, patience).await.unwrap_or_default();
        return Err(refusal(status, &bytes));
    }
    Ok(Opened { status, headers, body: pieces(response.bytes_stream()).boxed() })
}

fn pieces<E: std::fmt::Display>(
    stream: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
) -> impl Stream<Item = Result<Bytes, PeerError>> + Send {
    stream.map(|piece| piece.map_err(|error| PeerError::Unreachable(error.to_string())))
}

/// The Matrix error in an answer.
fn refusal(status: StatusCode, body: &[u8]) -> PeerError {
    #[derive(Deserialize)]
    struct Refusal {
        errcode: Option<String>,
        error: Option<String>,
    }
    let said: Option<Refusal> = serde_json::from_slice(body).ok();
    let (errcode, message) = said.map_or((None, None), |said| (said.errcode, said.error));
    PeerError::Refused {
        status,
        errcode: errcode.unwrap_or_else(|| "M_UNKNOWN".to_owned()),
        message: message.unwrap_or_default(),
    }
}
