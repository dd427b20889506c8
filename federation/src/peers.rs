//! Asking other servers: discovery, one connector, signed requests, bounded answers.

use crate::{
    Error, PeerError,
    address::Guard,
    backoff::{Backoff, Leave},
    connector::{Broken, Connector, Opened, Whither},
    discovery::Discovery,
    dns::System,
    trust,
    well_known::{OverWeb, redirected},
};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Uri, header};
use postern_config::{Config, ServerPattern};
use postern_rooms::Rooms;
use ruma::ServerName;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
use url::Url;

/// Largest answer of [`Peers::get`] and its like, bytes: a hundred events, or the ids of a large room's state.
const ANSWER_BYTES: usize = 32 << 20;
/// Largest answer of [`Peers::ask`], bytes: the state of the largest public rooms. The connector gathers few of them
/// at a time.
const LARGE_ANSWER_BYTES: usize = 256 << 20;
/// What a multipart answer has beside the file, bytes.
const ENVELOPE_BYTES: usize = 64 << 10;
/// Largest error of an answer that comes in pieces, bytes.
const ERROR_BYTES: usize = 64 << 10;
/// What of an error's message is kept, characters.
const MESSAGE: usize = 500;

/// The other servers. Patience with an answer begins when it is known where a server is: that takes up to ten seconds
/// more, once, and is remembered.
#[derive(Debug)]
pub struct Peers {
    rooms: Arc<Rooms>,
    connector: Arc<Connector>,
    discovery: Discovery,
    backoff: Backoff,
    enabled: bool,
    allowed: Vec<ServerPattern>,
    denied: Vec<ServerPattern>,
    patience: Duration,
    media_bytes: usize,
}

/// An error of the specification, as others send it.
#[derive(Deserialize)]
struct MatrixError {
    #[serde(default)]
    errcode: Option<String>,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    retry_after_ms: Option<u64>,
}

impl Peers {
    /// The way to other servers, as configured.
    ///
    /// # Errors
    /// [`Error::Setup`].
    pub fn new(config: &Config, rooms: Arc<Rooms>) -> Result<Self, Error> {
        let federation = &config.federation;
        let dns = Arc::new(System::new().map_err(Error::Setup)?);
        let guard = Guard::new(federation.allow_addresses.clone());
        let connect_timeout = Duration::from_millis(federation.connect_timeout_ms);
        let connector = Arc::new(Connector::new(dns, guard, trust::client(federation)?, connect_timeout));
        let [min, max] = [federation.backoff_min_ms, federation.backoff_max_ms].map(Duration::from_millis);
        Ok(Self {
            rooms,
            discovery: Discovery::new(Arc::new(OverWeb(connector.clone()))),
            connector,
            backoff: Backoff::new(min, max),
            enabled: federation.enabled,
            allowed: federation.allowed_servers.clone(),
            denied: federation.denied_servers.clone(),
            patience: Duration::from_millis(federation.request_timeout_ms),
            media_bytes: usize::try_from(config.media.max_upload_bytes).unwrap_or(usize::MAX),
        })
    }

    /// Reads the certificate authorities and this server's certificate towards others again, from where `config` has them.
    ///
    /// # Errors
    /// [`Error::Setup`] if a file cannot be used: all stays as it was.
    pub fn read_certificates(&self, config: &postern_config::Federation) -> Result<(), Error> {
        self.connector.trust(trust::client(config)?);
        Ok(())
    }

    /// Whether this server speaks with another one over the network now.
    #[must_use]
    pub fn allowed(&self, server: &ServerName) -> bool {
        self.federates(server) && self.rooms.speaks_with(server)
    }

    /// The same, whatever the gate says.
    fn federates(&self, server: &ServerName) -> bool {
        let named = |patterns: &[ServerPattern]| patterns.iter().any(|one| one.matches(server.as_str()));
        self.enabled
            && !self.rooms.is_by_hand(server)
            && (self.allowed.is_empty() || named(&self.allowed))
            && !named(&self.denied)
    }

    /// Whether a server may be asked something now.
    ///
    /// # Errors
    /// [`PeerError::NotAllowed`], [`PeerError::NotNow`], [`PeerError::BackingOff`].
    pub fn may_ask(&self, server: &ServerName) -> Result<(), PeerError> {
        self.leave(server).map(|_| ())
    }

    /// A server contacted this one: it is there, and may be asked again if it failed before.
    pub fn alive(&self, server: &ServerName) {
        self.discovery.heard_of(server);
        self.backoff.alive(server);
    }

    /// Somebody here waits for a server's answer: it may be asked though it failed before. Whoever asks again and again is
    /// held to the rate limits of clients.
    pub fn wanted(&self, server: &ServerName) {
        self.backoff.wanted(server);
    }

    /// Waits until a server that failed may be asked again; not at all if it did not fail.
    pub async fn until_worth_asking(&self, server: &ServerName) {
        self.backoff.until_leave(server).await;
    }

    /// Whether a server may be asked now, having not failed or been left alone for long enough.
    #[must_use]
    pub fn is_worth_asking(&self, server: &ServerName) -> bool {
        self.backoff.leave(server).is_some()
    }

    /// The connector, for others who make requests.
    #[must_use]
    pub const fn connector(&self) -> &Arc<Connector> {
        &self.connector
    }

    /// `GET` of `path` (with query, encoded), signed.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn get<A: DeserializeOwned>(&self, server: &ServerName, path: &str) -> Result<A, PeerError> {
        self.signed(server, Method::GET, path, None::<&()>, self.patience, ANSWER_BYTES).await
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
        self.signed(server, Method::POST, path, Some(body), self.patience, ANSWER_BYTES).await
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
        self.signed(server, Method::PUT, path, Some(body), self.patience, ANSWER_BYTES).await
    }

    /// A signed request whose JSON answer is awaited for at most `patience`, whole. The answer may be as large as the
    /// state of a large room.
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
        self.signed(server, method, path, body, patience, LARGE_ANSWER_BYTES).await
    }

    /// A signed `GET` whose answer comes in pieces, for files: its header is awaited for at most `patience`, the body may
    /// be as large as an upload here. An answer that redirects is followed once, to wherever it says, without a
    /// signature.
    ///
    /// # Errors
    /// [`PeerError`], also if the answer is no success.
    pub async fn open(
        &self,
        server: &ServerName,
        path: &str,
        patience: Duration,
    ) -> Result<Opened, PeerError> {
        let leave = self.leave(server)?;
        let request = self.request(server, Method::GET, path, None, true).await?;
        let deadline = Instant::now() + patience;
        let url = Url::parse(&request.uri().to_string()).ok();
        let answer = self.connector.send(&self.whither(server), request, deadline).await;
        let answer = self.noted(server, leave, answer)?;
        if let Some(url) = url.and_then(|url| redirected(&url, answer.status(), answer.headers())) {
            return self.open_location(url.as_str(), patience).await;
        }
        self.opened(answer, deadline).await
    }

    /// A `GET` of a URL another server named as the place of a file (the `Location` of a multipart answer, or of a
    /// redirect), without a signature. No redirect is followed any more.
    ///
    /// # Errors
    /// [`PeerError`], also if the answer is no success.
    pub async fn open_location(&self, url: &str, patience: Duration) -> Result<Opened, PeerError> {
        let request =
            Request::get(url).body(Bytes::new()).map_err(|e| PeerError::BadAnswer(e.to_string()))?;
        let deadline = Instant::now() + patience;
        let answer = self.connector.send(&Whither::Web, request, deadline).await.map_err(broken)?;
        self.opened(answer, deadline).await
    }

    async fn opened(
        &self,
        answer: Response<hyper::body::Incoming>,
        deadline: Instant,
    ) -> Result<Opened, PeerError> {
        if answer.status() != StatusCode::OK {
            let (head, body) = answer.into_parts();
            // What is wrong is told even if why is not.
            let said = self.connector.gather(body, ERROR_BYTES, deadline).await.unwrap_or_default();
            return Err(refused(head.status, &said));
        }
        Ok(Opened::new(answer, self.media_bytes.saturating_add(ENVELOPE_BYTES)))
    }

    /// A request without signature, also to a server that failed before: for keys, without which a server that
    /// contacts this one after an outage could not be recognized. Who asks must ask seldom.
    pub(crate) async fn unsigned<A: DeserializeOwned>(
        &self,
        server: &ServerName,
        method: Method,
        path: &str,
        body: Option<&Value>,
        patience: Duration,
        bound: usize,
    ) -> Result<A, PeerError> {
        if !self.allowed(server) {
            return Err(self.not_allowed(server));
        }
        let request = self.request(server, method, path, body, false).await?;
        let deadline = Instant::now() + patience;
        let answer = self.connector.ask(&self.whither(server), request, deadline, bound).await;
        self.look_at_key(server, &answer);
        parsed(&answer.map_err(broken)?)
    }

    async fn signed<A: DeserializeOwned>(
        &self,
        server: &ServerName,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + ?Sized)>,
        patience: Duration,
        bound: usize,
    ) -> Result<A, PeerError> {
        let leave = self.leave(server)?;
        let mut content = body
            .map(serde_json::to_value)
            .transpose()
            .map_err(|error| PeerError::Unsendable(error.to_string()))?;
        // Those have a body always (specification: API standards).
        if content.is_none() && matches!(method, Method::POST | Method::PUT) {
            content = Some(json!({}));
        }
        // What a request tells of events has to be written down before.
        self.rooms.settled().await.map_err(|error| PeerError::Unsendable(error.to_string()))?;
        let request = self.request(server, method, path, content.as_ref(), true).await?;
        let deadline = Instant::now() + patience;
        let answer = self.connector.ask(&self.whither(server), request, deadline, bound).await;
        parsed(&self.noted(server, leave, answer)?)
    }

    /// Why a server is not spoken with.
    fn not_allowed(&self, server: &ServerName) -> PeerError {
        if self.federates(server) && self.rooms.speaks_later(server) {
            PeerError::NotNow(server.to_owned())
        } else {
            PeerError::NotAllowed(server.to_owned())
        }
    }

    fn leave(&self, server: &ServerName) -> Result<Leave, PeerError> {
        if !self.allowed(server) || server == self.rooms.server_name() {
            return Err(self.not_allowed(server));
        }
        self.backoff.leave(server).ok_or(PeerError::BackingOff)
    }

    /// A request to a server, at the name it is reached under.
    async fn request(
        &self,
        server: &ServerName,
        method: Method,
        path: &str,
        content: Option<&Value>,
        sign: bool,
    ) -> Result<Request<Bytes>, PeerError> {
        let unsendable = |error: &dyn std::fmt::Display| PeerError::Unsendable(error.to_string());
        let authority = self.discovery.authority(server).await;
        let uri: Uri =
            format!("https://{}{path}", authority.as_str()).parse().map_err(|error| unsendable(&error))?;
        let mut request = Request::builder().method(method.clone());
        if sign {
            let target = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
            let signature = self.rooms.keys().sign_request(method.as_str(), target, server, content);
            request = request.header(header::AUTHORIZATION, signature);
        }
        let body = match content {
            Some(content) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                serde_json::to_vec(content).map_err(|error| unsendable(&error))?.into()
            }
            None => Bytes::new(),
        };
        request.uri(uri).body(body).map_err(|error| unsendable(&error))
    }

    /// How a server is reached.
    fn whither(&self, server: &ServerName) -> Whither {
        Whither::Server(self.rooms.gate().map(|gate| gate.pins(server)).unwrap_or_default())
    }

    /// Tells the border of a server that has another key than it has to have.
    fn look_at_key<B>(&self, server: &ServerName, answer: &Result<Response<B>, Broken>) {
        if let (Err(Broken::OtherKey(why)), Some(gate)) = (answer, self.rooms.gate()) {
            gate.other_key(server, why);
        }
    }

    /// Takes note of how a server answered.
    fn noted<B>(
        &self,
        server: &ServerName,
        leave: Leave,
        answer: Result<Response<B>, Broken>,
    ) -> Result<Response<B>, PeerError> {
        self.look_at_key(server, &answer);
        let outcome = match &answer {
            Ok(answer) => match answer.status().as_u16() {
                // Of a proxy whose server is away, or of one that has too much to do.
                502..=504 | 429 => {
                    self.backoff.failed(server, leave, retry_after(answer.headers()));
                    "busy"
                }
                _ => {
                    self.backoff.succeeded(server);
                    "answered"
                }
            },
            Err(error) => {
                tracing::debug!(%server, %error, "a server was not reached");
                if matches!(
                    error,
                    Broken::Unconnected(_) | Broken::Connection(_) | Broken::Late | Broken::OtherKey(_)
                ) {
                    self.backoff.failed(server, leave, None);
                }
                "failed"
            }
        };
        metrics::counter!("postern_federation_requests_total", "outcome" => outcome).increment(1);
        answer.map_err(broken)
    }
}

/// When a server wants to be asked again, in seconds (RFC 9110, section 10.2.3).
fn retry_after(headers: &http::HeaderMap) -> Option<Duration> {
    headers.get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

fn broken(error: Broken) -> PeerError {
    match error {
        Broken::Request(error) => PeerError::Unsendable(error.to_string()),
        Broken::Unconnected(_) | Broken::OtherKey(_) => PeerError::Unconnected(error.to_string()),
        Broken::Connection(_) | Broken::Late => PeerError::Unreachable(error.to_string()),
        Broken::TooLarge(_) | Broken::Compressed => PeerError::BadAnswer(error.to_string()),
    }
}

/// The JSON of a success; else the error.
fn parsed<A: DeserializeOwned>(answer: &Response<Bytes>) -> Result<A, PeerError> {
    if !answer.status().is_success() {
        return Err(refused(answer.status(), answer.body()));
    }
    serde_json::from_slice(answer.body()).map_err(|error| PeerError::BadAnswer(error.to_string()))
}

fn refused(status: StatusCode, body: &[u8]) -> PeerError {
    let said: Option<MatrixError> = serde_json::from_slice(body).ok();
    let (errcode, message) = said.map_or((None, None), |said| {
        let wait = said.retry_after_ms.map(|ms| format!(" (again in {ms} ms)")).unwrap_or_default();
        (said.errcode, said.error.map(|message| message.chars().take(MESSAGE).collect::<String>() + &wait))
    });
    let fits = |code: &String| code.len() <= 255 && code.bytes().all(|b| b.is_ascii_graphic());
    PeerError::Refused {
        status,
        errcode: errcode.filter(fits).unwrap_or_else(|| "M_UNKNOWN".to_owned()),
        message: message.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_server_says_went_wrong_is_kept_within_bounds() {
        let said = |body: &str| match refused(StatusCode::FORBIDDEN, body.as_bytes()) {
            PeerError::Refused { errcode, message, .. } => (errcode, message),
            other => panic!("{other}"),
        };
        assert_eq!(
            said(r#"{"errcode":"M_FORBIDDEN","error":"no"}"#),
            ("M_FORBIDDEN".to_owned(), "no".to_owned())
        );
        assert_eq!(said("<html>"), ("M_UNKNOWN".to_owned(), String::new()));
        assert_eq!(said(r#"{"errcode":"M \n","error":1}"#).0, "M_UNKNOWN");
        assert_eq!(said(&format!(r#"{{"error":"{}"}}"#, "é".repeat(9_000))).1.chars().count(), MESSAGE);
    }
}
