//! How others reach the hostile server: HTTP over TLS at its own address.

use axum::body::Body;
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Request, Response};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use postern_world::Seat;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde_json::Value;
use std::{
    convert::Infallible,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::{net::TcpListener, runtime::Runtime, task::JoinHandle};
use tokio_rustls::TlsAcceptor;

/// A request that came.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The segments of the path, decoded.
    pub segments: Vec<String>,
    /// The parameters, decoded.
    pub query: Vec<(String, String)>,
    pub body: Bytes,
}

impl Asked {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The first parameter of this name; empty if there is none.
    pub fn parameter(&self, name: &str) -> &str {
        self.query.iter().find(|(each, _)| each == name).map_or("", |(_, value)| value.as_str())
    }
}

/// What is answered.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    /// What of the body comes first, and once.
    pub first: Bytes,
    /// Before the answer begins.
    pub after: Duration,
    /// How often the body is sent, one after the other, with a pause before each but the first.
    pub times: usize,
    pub pause: Duration,
}

impl Reply {
    pub fn json(value: &Value) -> Self {
        Self::bytes("application/json", value.to_string())
    }

    pub fn bytes(content_type: &str, body: impl Into<Bytes>) -> Self {
        Self {
            status: 200,
            headers: vec![("content-type".to_owned(), content_type.to_owned())],
            body: body.into(),
            first: Bytes::new(),
            after: Duration::ZERO,
            times: 1,
            pause: Duration::ZERO,
        }
    }

    pub fn error(status: u16, errcode: &str) -> Self {
        let body = serde_json::json!({ "errcode": errcode, "error": "mallory says no" });
        Self { status, ..Self::json(&body) }
    }

    pub fn with(mut self, header: &str, value: &str) -> Self {
        self.headers.push((header.to_owned(), value.to_owned()));
        self
    }

    fn response(self) -> Response<Body> {
        let mut response = Response::builder().status(self.status);
        for (name, value) in &self.headers {
            response = response.header(name, value);
        }
        let (piece, pause) = (self.body, self.pause);
        let body = if self.times == 1 {
            Body::from(piece)
        } else {
            let first = stream::iter([Ok::<_, Infallible>(self.first)]);
            let rest = stream::unfold(self.times, move |left| {
                let piece = piece.clone();
                async move {
                    if left == 0 {
                        return None;
                    }
                    tokio::time::sleep(pause).await;
                    Some((Ok(piece), left - 1))
                }
            });
            Body::from_stream(first.chain(rest))
        };
        response.body(body).unwrap()
    }
}

/// What decides about answers.
pub type Answers = Arc<dyn Fn(&Asked) -> Reply + Send + Sync>;

pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
    })
}

/// Listens until the task is aborted.
pub fn listen(seat: &Seat, answers: Answers) -> JoinHandle<()> {
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_file_iter(&seat.certificate).unwrap().collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(&seat.key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = std::net::TcpListener::bind(seat.address).unwrap();
    listener.set_nonblocking(true).unwrap();
    runtime().spawn(async move {
        let listener = TcpListener::from_std(listener).unwrap();
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let (acceptor, answers) = (acceptor.clone(), answers.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = service_fn(move |request| answer(request, answers.clone()));
                // Whoever asks may hang up whenever it likes.
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    })
}

async fn answer(
    request: Request<hyper::body::Incoming>,
    answers: Answers,
) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(Body::new(body), 64 << 20).await.unwrap_or_default();
    let decode = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    let pairs = head.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    let asked = Asked {
        segments: head.uri.path().trim_start_matches('/').split('/').map(decode).collect(),
        query: pairs
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                (decode(name), decode(value))
            })
            .collect(),
        body,
    };
    let reply = answers(&asked);
    tokio::time::sleep(reply.after).await;
    Ok(reply.response())
}
