//! Listening: connections, their limits, and ending them in an orderly way.

use crate::{
    peer::client_address,
    stall::Unstalled,
    tls::{Asked, Tls},
};
use axum::{Router, body::Body};
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::graceful::{GracefulConnection, GracefulShutdown},
    service::TowerToHyperService,
};
use ipnet::IpNet;
use postern_config::Limits;
use postern_web::{PeerAddress, PeerKey};
use std::{
    io,
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// A TLS handshake may take this long.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// What an HTTP/2 connection begins with (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0";
/// Idle HTTP/2 connections are probed this often.
const PROBE: Duration = Duration::from_secs(60);

/// Accepts connections and serves them.
pub struct Server {
    router: Router,
    trusted: Arc<[IpNet]>,
    stalled: Duration,
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
    first_bytes: Duration,
    connections: Arc<Semaphore>,
    /// Nothing once the server drains.
    open: RwLock<Option<GracefulShutdown>>,
    stopping: CancellationToken,
}

impl Server {
    /// A server of `router` within `limits`, which accepts until `stopping`.
    pub fn new(router: Router, trusted: &[IpNet], limits: &Limits, stopping: CancellationToken) -> Self {
        let first_bytes = Duration::from_millis(limits.header_read_timeout_ms);
        let mut http1 = http1::Builder::new();
        http1.timer(TokioTimer::new()).header_read_timeout(first_bytes);
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.max_streams_per_connection)
            .keep_alive_interval(PROBE)
            .max_header_list_size(64 << 10);
        Self {
            router,
            trusted: trusted.into(),
            stalled: Duration::from_millis(limits.stalled_timeout_ms),
            http1,
            http2,
            first_bytes,
            connections: Arc::new(Semaphore::new(limits.max_connections)),
            open: RwLock::new(Some(GracefulShutdown::new())),
            stopping,
        }
    }

    /// Accepts connections until the server stops.
    pub async fn accept(self: Arc<Self>, listener: TcpListener, tls: Option<(Arc<Tls>, Asked)>) {
        loop {
            let accepted = tokio::select! {
                () = self.stopping.cancelled() => return,
                accepted = self.next(&listener) => accepted,
            };
            let Some((stream, peer, permit)) = accepted else { return };
            let (server, tls) = (self.clone(), tls.clone());
            tokio::spawn(async move {
                metrics::gauge!("postern_connections").increment(1.0);
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "TCP_NODELAY");
                }
                match tls {
                    None => server.serve_plain(stream, peer).await,
                    // Boxed, since a connection without TLS needs a third of the memory.
                    Some((tls, asked)) => Box::pin(server.serve_tls(stream, peer, tls.acceptor(asked))).await,
                }
                metrics::gauge!("postern_connections").decrement(1.0);
                drop(permit);
            });
        }
    }

    async fn next(
        &self,
        listener: &TcpListener,
    ) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
        let permit = self.connections.clone().acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => return Some((stream, peer, permit)),
                Err(error) => {
                    // Out of files, most likely: others will close theirs.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn serve_tls(&self, stream: TcpStream, peer: SocketAddr, acceptor: TlsAcceptor) {
        match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => {
                let session = stream.get_ref().1;
                let http2 = session.alpn_protocol() == Some(b"h2");
                let shown = session.peer_certificates().and_then(<[_]>::first);
                let key = shown.and_then(postern_federation::key_digest).map(PeerKey);
                self.serve(stream, peer, key, http2).await;
            }
            Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
            Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
        }
    }

    async fn serve_plain(&self, stream: TcpStream, peer: SocketAddr) {
        match tokio::time::timeout(self.first_bytes, begins_with_http2(&stream)).await {
            Ok(Ok(true)) => Box::pin(self.serve(stream, peer, None, true)).await,
            Ok(Ok(false)) => self.serve(stream, peer, None, false).await,
            Ok(Err(error)) => tracing::debug!(%peer, %error, "a connection ended"),
            Err(_) => tracing::debug!(%peer, "a connection said nothing"),
        }
    }

    async fn serve<S>(&self, stream: S, peer: SocketAddr, key: Option<PeerKey>, http2: bool)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let trusted = self.trusted.clone();
        let service = self.router.clone().map_request(move |mut request: Request<Incoming>| {
            let address = client_address(&trusted, peer, request.headers());
            request.extensions_mut().insert(PeerAddress(address));
            if let Some(key) = key {
                request.extensions_mut().insert(key);
            }
            request.map(Body::new)
        });
        let (service, io) =
            (TowerToHyperService::new(service), TokioIo::new(Unstalled::new(stream, self.stalled)));
        let ended = if http2 {
            Box::pin(self.watched(self.http2.serve_connection(io, service))).await
        } else {
            self.watched(self.http1.serve_connection(io, service)).await
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, %error, "a connection ended");
        }
    }

    /// Serves a connection, to its end or until the server drains and its requests are answered.
    async fn watched<C: GracefulConnection<Error = hyper::Error>>(
        &self,
        connection: C,
    ) -> Result<(), C::Error> {
        let open = self
            .open
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .map(|open| open.watch(connection));
        match open {
            Some(connection) => connection.await,
            None => Ok(()),
        }
    }

    /// Lets open connections finish what they are doing, for at most `patience`.
    pub async fn drain(&self, patience: Duration) {
        let Some(open) = self.open.write().unwrap_or_else(PoisonError::into_inner).take() else { return };
        if tokio::time::timeout(patience, open.shutdown()).await.is_err() {
            tracing::warn!("some requests were still in progress and are cut off");
        }
    }
}

/// Whether a peer without TLS speaks HTTP/2 at once, which it may if it knows that this server does. Its bytes stay
/// where they are: read ahead, they would cost every connection a second buffer.
async fn begins_with_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut begin = [0; PREFACE.len()];
    loop {
        let length = stream.peek(&mut begin).await?;
        let seen = begin.get(..length).unwrap_or_default();
        if seen.is_empty() || !PREFACE.starts_with(seen) {
            return Ok(false);
        }
        if length == PREFACE.len() {
            return Ok(true);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
