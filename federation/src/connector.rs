//! The one way out: every HTTP request this server makes by itself goes through here.
//!
//! Connections go to public addresses only, and to those an administrator named. That is decided on the address which is
//! connected to, after all names were looked up, so no name can lead anywhere else. TLS is always used, and the certificate
//! has to be for the name in the `Host` header. Nothing is asked for compressed, so no answer can swell; redirects are not
//! followed here. HTTP/2 is spoken where the other side can.

use crate::{
    address::Guard,
    discovery::{self, literal},
    dns::Dns,
    trust::key_digest,
};
use bytes::{Bytes, BytesMut};
use futures::{
    Stream, StreamExt,
    future::BoxFuture,
    stream::{self, FuturesUnordered},
};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, BodyStream, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connected, Connection},
    },
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use parking_lot::RwLock;
use postern_rooms::Pins;
use quick_cache::sync::Cache;
use ruma::ServerName;
use rustls::{ClientConfig, pki_types::ServerName as CertificateName};
use std::{
    convert::Infallible,
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    net::TcpStream,
    sync::Semaphore,
    time::{Instant, timeout_at},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// How long a connection is kept that is not used.
const IDLE: Duration = Duration::from_secs(60);
/// Connections to one host that are kept without being used.
const IDLE_PER_HOST: usize = 4;
/// How often a connection in use is probed (HTTP/2).
const PROBE: Duration = Duration::from_secs(20);
/// Largest header of an answer over HTTP/2, bytes.
const HEADER_BYTES: u32 = 64 << 10;
/// How long one address has before the next is tried beside it (RFC 8305).
const HEAD_START: Duration = Duration::from_millis(250);
/// Answers that may be larger than this at a time are few: bytes.
const ORDINARY_BYTES: usize = 32 << 20;
/// How many answers above that are gathered at a time.
const LARGE_AT_ONCE: usize = 4;
/// How long the other side may take for the next piece of a stream.
const STALLED: Duration = Duration::from_secs(30);
/// Sets of keys for which connections are kept.
const PINNED: usize = 1_000;
/// What is said about who asks.
const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("Postern/", env!("CARGO_PKG_VERSION")));

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The request is none.
    #[error("the request cannot be made: {0}")]
    Request(#[from] http::Error),
    /// There was no connection to be had. Nothing was sent.
    #[error("{0}")]
    Unconnected(String),
    /// The connection broke.
    #[error("{0}")]
    Connection(String),
    /// It took too long.
    #[error("there was no answer in time")]
    Late,
    /// The answer is larger than asked for.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// The answer is compressed, which was not asked for.
    #[error("the answer is compressed, which was not asked for")]
    Compressed,
    /// The other side has another key than it has to have. Nothing was sent.
    #[error("{0}")]
    OtherKey(String),
}

/// Why a connection was not made.
#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("{0}")]
    Nowhere(String),
    #[error(
        "{0} is not connected to: its address is private or special, and allow_addresses in the configuration does not have it"
    )]
    Guarded(String),
    #[error("connecting took too long")]
    Late,
    #[error("{0} is no host")]
    Host(String),
    #[error("{0}: {1}")]
    Tcp(SocketAddr, io::Error),
    #[error("TLS: {0}")]
    Tls(io::Error),
    #[error("the certificate of {0} has another public key than it has to have")]
    OtherKey(String),
}

/// How a host of a URI is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// As a server name after delegation: SRV records, port 8448.
    Federation,
    /// As on the web: port 443.
    Web,
}

/// Where a request goes.
#[derive(Debug, Clone)]
pub enum Whither {
    /// To a server, whose certificate has to have one of these keys if any are named.
    Server(Pins),
    /// Somewhere on the web.
    Web,
}

/// The way out. Requests of one kind share connections.
#[derive(Debug)]
pub struct Connector {
    places: Arc<Places>,
    clients: RwLock<Clients>,
    large: Semaphore,
}

/// The connections of one TLS setting.
#[derive(Debug)]
struct Clients {
    federation: Client<Dial, Full<Bytes>>,
    web: Client<Dial, Full<Bytes>>,
    /// Connections to servers that have to have one of these keys.
    pinned: Cache<Pins, Client<Dial, Full<Bytes>>>,
    dial: Dial,
}

impl Clients {
    fn new(places: &Arc<Places>, tls: ClientConfig) -> Self {
        let tls = TlsConnector::from(Arc::new(tls));
        let dial = Dial { way: Way::Federation, places: places.clone(), tls, pins: Pins::default() };
        Self {
            federation: client(dial.clone()),
            web: client(Dial { way: Way::Web, ..dial.clone() }),
            pinned: Cache::new(PINNED),
            dial,
        }
    }

    /// The connections to a server that has to have one of these keys, if any are named.
    fn to_server(&self, pins: &Pins) -> Client<Dial, Full<Bytes>> {
        if pins.is_empty() {
            return self.federation.clone();
        }
        let make = || Ok::<_, Infallible>(client(Dial { pins: pins.clone(), ..self.dial.clone() }));
        let Ok(client) = self.pinned.get_or_insert_with(pins, make);
        client
    }
}

fn client(dial: Dial) -> Client<Dial, Full<Bytes>> {
    Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(IDLE_PER_HOST)
        .http2_keep_alive_interval(PROBE)
        .http2_max_header_list_size(HEADER_BYTES)
        .build(dial)
}

impl Connector {
    /// A way out with these names, bounds and certificates.
    #[must_use]
    pub fn new(dns: Arc<dyn Dns>, guard: Guard, tls: ClientConfig, connect_timeout: Duration) -> Self {
        let places = Arc::new(Places { dns, guard, connect_timeout });
        let clients = RwLock::new(Clients::new(&places, tls));
        Self { places, clients, large: Semaphore::new(LARGE_AT_ONCE) }
    }

    /// From now on, these certificates: connections that were made with others get no new requests.
    pub fn trust(&self, tls: ClientConfig) {
        let clients = Clients::new(&self.places, tls);
        *self.clients.write() = clients;
    }

    /// Sends a request with an absolute `https` URI; the header of the answer comes by `deadline`.
    ///
    /// # Errors
    /// [`Broken`]
    pub async fn send(
        &self,
        whither: &Whither,
        mut request: Request<Bytes>,
        deadline: Instant,
    ) -> Result<Response<Incoming>, Broken> {
        let host = request.uri().authority().filter(|authority| !authority.as_str().contains('@'));
        let host = host.ok_or_else(|| Broken::Unconnected("the URI has no host".to_owned()))?;
        if request.uri().scheme() != Some(&http::uri::Scheme::HTTPS) {
            return Err(Broken::Unconnected("only https is spoken".to_owned()));
        }
        // As it is, with its port; left to itself, the client takes a default port away.
        let host = HeaderValue::from_str(host.as_str()).map_err(http::Error::from)?;
        request.headers_mut().insert(header::HOST, host);
        request.headers_mut().insert(header::USER_AGENT, USER_AGENT);
        let client = match whither {
            Whither::Server(pins) => self.clients.read().to_server(pins),
            Whither::Web => self.clients.read().web.clone(),
        };
        let answer = timeout_at(deadline, client.request(request.map(Full::new)))
            .await
            .map_err(|_| Broken::Late)?
            .map_err(|error| broken(&error))?;
        let encoding = answer.headers().get(header::CONTENT_ENCODING);
        if encoding.is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Err(Broken::Compressed);
        }
        Ok(answer)
    }

    /// Sends a request and waits for the whole answer, of `bound` bytes at most.
    ///
    /// # Errors
    /// [`Broken`]
    pub async fn ask(
        &self,
        whither: &Whither,
        request: Request<Bytes>,
        deadline: Instant,
        bound: usize,
    ) -> Result<Response<Bytes>, Broken> {
        let (head, body) = self.send(whither, request, deadline).await?.into_parts();
        Ok(Response::from_parts(head, self.gather(body, bound, deadline).await?))
    }

    /// A body as a whole, of `bound` bytes at most.
    ///
    /// # Errors
    /// [`Broken`]
    pub async fn gather(&self, body: Incoming, bound: usize, deadline: Instant) -> Result<Bytes, Broken> {
        timeout_at(deadline, self.gathered(body, bound)).await.map_err(|_| Broken::Late)?
    }

    async fn gathered(&self, mut body: Incoming, bound: usize) -> Result<Bytes, Broken> {
        let mut whole = BytesMut::new();
        let mut permit = None;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Broken::Connection(causes(&error)))?;
            let Ok(piece) = frame.into_data() else { continue };
            if whole.len() + piece.len() > bound {
                return Err(Broken::TooLarge(bound));
            }
            if whole.len() + piece.len() > ORDINARY_BYTES && permit.is_none() {
                permit = Some(self.large.acquire().await.map_err(|_| Broken::TooLarge(ORDINARY_BYTES))?);
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }
}

/// An answer that comes in pieces.
pub struct Opened {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body: within its bound, and it fails if nothing comes for too long.
    pub body: Pin<Box<dyn Stream<Item = Result<Bytes, Broken>> + Send>>,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").field("status", &self.status).finish_non_exhaustive()
    }
}

impl Opened {
    /// An answer whose body may have `bound` bytes.
    pub(crate) fn new(answer: Response<Incoming>, bound: usize) -> Self {
        let (head, body) = answer.into_parts();
        let pieces = stream::unfold(Some((BodyStream::new(body), 0)), move |state| async move {
            let (mut body, mut length) = state?;
            loop {
                let frame = match tokio::time::timeout(STALLED, body.next()).await {
                    Err(_) => return Some((Err(Broken::Late), None)),
                    Ok(None) => return None,
                    Ok(Some(Err(error))) => return Some((Err(Broken::Connection(causes(&error))), None)),
                    Ok(Some(Ok(frame))) => frame,
                };
                let Ok(piece) = frame.into_data() else { continue };
                length += piece.len();
                if length > bound {
                    return Some((Err(Broken::TooLarge(bound)), None));
                }
                return Some((Ok(piece), Some((body, length))));
            }
        });
        Self { status: head.status, headers: head.headers, body: Box::pin(pieces) }
    }
}

/// Why there was no connection, or that it broke.
fn broken(error: &hyper_util::client::legacy::Error) -> Broken {
    if !error.is_connect() {
        return Broken::Connection(causes(error));
    }
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(one) = cause {
        if let Some(DialError::OtherKey(_)) = one.downcast_ref() {
            return Broken::OtherKey(one.to_string());
        }
        cause = one.source();
    }
    Broken::Unconnected(causes(error))
}

/// An error with what caused it, in one line.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// How hosts are found and reached.
struct Places {
    dns: Arc<dyn Dns>,
    guard: Guard,
    connect_timeout: Duration,
}

impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Places").field("guard", &self.guard).finish_non_exhaustive()
    }
}

/// Makes connections for the pool.
#[derive(Clone)]
struct Dial {
    way: Way,
    places: Arc<Places>,
    tls: TlsConnector,
    /// Keys, one of which the other side has to have, if any are named.
    pins: Pins,
}

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dial").field("way", &self.way).finish_non_exhaustive()
    }
}

impl tower::Service<Uri> for Dial {
    type Response = Link;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = BoxFuture<'static, Result<Link, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let dial = self.clone();
        Box::pin(async move {
            let link = tokio::time::timeout(dial.places.connect_timeout, dial.dial(&uri)).await;
            Ok(link.map_err(|_| DialError::Late)??)
        })
    }
}

impl Dial {
    async fn dial(&self, uri: &Uri) -> Result<Link, DialError> {
        let host = uri.host().unwrap_or_default();
        let places = self.places(uri, host).await.map_err(DialError::Nowhere)?;
        // Here and nowhere else: on the addresses that are connected to.
        let places: Vec<_> =
            places.into_iter().filter(|place| self.places.guard.permits(place.ip())).collect();
        if places.is_empty() {
            return Err(DialError::Guarded(host.to_owned()));
        }
        let stream = race(&places).await?;
        let name = match literal(host) {
            Some(address) => CertificateName::from(address),
            None => CertificateName::try_from(host.trim_end_matches('.').to_owned())
                .map_err(|_| DialError::Host(host.to_owned()))?,
        };
        let stream = self.tls.connect(name, stream).await.map_err(DialError::Tls)?;
        if !self.pins.is_empty() {
            let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
            if !shown.and_then(key_digest).is_some_and(|key| self.pins.contains(&key)) {
                return Err(DialError::OtherKey(host.to_owned()));
            }
        }
        Ok(Link(TokioIo::new(stream)))
    }

    async fn places(&self, uri: &Uri, host: &str) -> Result<Vec<SocketAddr>, String> {
        let dns = &*self.places.dns;
        match self.way {
            Way::Federation => {
                let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
                let name = <&ServerName>::try_from(authority).map_err(|error| error.to_string())?;
                discovery::places(dns, name).await
            }
            Way::Web => {
                let port = uri.port_u16().unwrap_or(443);
                match literal(host) {
                    Some(address) => Ok(vec![SocketAddr::new(address, port)]),
                    None => discovery::addresses(dns, host, port).await,
                }
            }
        }
    }
}

/// Connects to the first of these addresses that answers; each has a head start before the next.
async fn race(places: &[SocketAddr]) -> Result<TcpStream, DialError> {
    let mut attempts: FuturesUnordered<_> = (0_u32..)
        .zip(places)
        .map(|(turn, place)| async move {
            tokio::time::sleep(HEAD_START * turn).await;
            TcpStream::connect(place).await.map_err(|error| DialError::Tcp(*place, error))
        })
        .collect();
    let mut failed = DialError::Late;
    while let Some(attempt) = attempts.next().await {
        match attempt {
            Ok(stream) => {
                // It only costs time if that fails.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// A connection with TLS.
struct Link(TokioIo<TlsStream<TcpStream>>);

impl Connection for Link {
    fn connected(&self) -> Connected {
        let connected = Connected::new();
        if self.0.inner().get_ref().1.alpn_protocol() == Some(b"h2") {
            connected.negotiated_h2()
        } else {
            connected
        }
    }
}

impl hyper::rt::Read for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl hyper::rt::Write for Link {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, pieces)
    }
}

#[cfg(test)]
mod tests;
