//! Listening: connections, their limits, and ending them in an orderly way.

use crate::{peer::client_address, stall::Unstalled, tls::Tls};
use axum::{Router, body::Body};
use http::Request;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use ipnet::IpNet;
use postern_client::http::PeerAddress;
use postern_config::Limits;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// A TLS handshake may take this long.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Idle HTTP/2 connections are probed this often.
const PROBE: Duration = Duration::from_secs(60);

/// Accepts connections and serves them.
pub struct Server {
    router: Router,
    trusted: Arc<[IpNet]>,
    stalled: Duration,
    builder: auto::Builder<TokioExecutor>,
    connections: Arc<Semaphore>,
    open: Arc<GracefulShutdown>,
    stopping: CancellationToken,
}

impl Server {
    /// A server of `router` within `limits`, which accepts until `stopping`.
    pub fn new(router: Router, trusted: &[IpNet], limits: &Limits, stopping: CancellationToken) -> Self {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_millis(limits.header_read_timeout_ms))
            .pipeline_flush(true);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.max_streams_per_connection)
            .keep_alive_interval(PROBE)
            .max_header_list_size(64 << 10);
        Self {
            router,
            trusted: trusted.into(),
            stalled: Duration::from_millis(limits.stalled_timeout_ms),
            builder,
            connections: Arc::new(Semaphore::new(limits.max_connections)),
            open: Arc::new(GracefulShutdown::new()),
            stopping,
        }
    }

    /// Accepts connections until the server stops.
    pub async fn accept(self: Arc<Self>, listener: TcpListener, tls: Option<Arc<Tls>>) {
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
                    None => server.serve(stream, peer).await,
                    Some(tls) => match tokio::time::timeout(HANDSHAKE, tls.acceptor().accept(stream)).await {
                        Ok(Ok(stream)) => server.serve(stream, peer).await,
                        Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
                        Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
                    },
                }
                metrics::gauge!("postern_connections").decrement(1.0);
                drop(permit);
            });
        }
    }

    async fn next(
        &self,
        listener: &TcpListener,
    ) -> Option<(tokio::net::TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
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

    async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, stream: S, peer: SocketAddr) {
        let trusted = self.trusted.clone();
        let service = self.router.clone().map_request(move |mut request: Request<Incoming>| {
            let address = client_address(&trusted, peer, request.headers());
            request.extensions_mut().insert(PeerAddress(address));
            request.map(Body::new)
        });
        let io = TokioIo::new(Unstalled::new(stream, self.stalled));
        let connection = self.builder.serve_connection(io, TowerToHyperService::new(service)).into_owned();
        if let Err(error) = self.open.watcher().watch(connection).await {
            tracing::debug!(%peer, %error, "a connection ended");
        }
    }

    /// Lets open connections finish what they are doing, for at most `patience`.
    pub async fn drain(self, patience: Duration) {
        let Some(open) = Arc::into_inner(self.open) else { return };
        if tokio::time::timeout(patience, open.shutdown()).await.is_err() {
            tracing::warn!("some requests were still in progress and are cut off");
        }
    }
}
