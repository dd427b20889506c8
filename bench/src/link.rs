//! One kept-open HTTP/1.1 connection to a server, and what can go wrong on it.
//!
//! No connection pool and no second thread: the load generator shares the machine with the servers it measures, so
//! that what it burns itself is taken from them.

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection could not be made.
    #[error("cannot connect to {0}: {1}")]
    Connect(String, std::io::Error),
    /// The connection broke.
    #[error("connection: {0}")]
    Http(#[from] hyper::Error),
    /// The request could not be built.
    #[error("request: {0}")]
    Request(#[from] http::Error),
    /// The server's answer is not JSON.
    #[error("answer: {0}")]
    Json(#[from] serde_json::Error),
    /// The server refused.
    #[error("{method} {path}: {status}: {body}")]
    Refused {
        /// The method of the request.
        method: Method,
        /// Its path and query.
        path: String,
        /// The status of the answer.
        status: u16,
        /// The body of the answer.
        body: String,
    },
    /// The answer lacks a field.
    #[error("the answer has no {0}")]
    Missing(&'static str),
    /// `/proc` or another file could not be read.
    #[error("{0}: {1}")]
    File(String, std::io::Error),
}

/// A connection of one user. Made again when the server closed it between two requests.
#[derive(Debug)]
pub struct Link {
    address: String,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Link {
    /// A link to `address` (host and port); it connects with the first request.
    pub fn to(address: &str) -> Self {
        Self { address: address.to_owned(), sender: None }
    }

    async fn sender(&mut self) -> Result<&mut SendRequest<Full<Bytes>>, Error> {
        let open = match self.sender.take() {
            Some(mut sender) => sender.ready().await.is_ok().then_some(sender),
            None => None,
        };
        let sender = match open {
            Some(sender) => sender,
            None => {
                let failed = |error| Error::Connect(self.address.clone(), error);
                let stream = TcpStream::connect(&self.address).await.map_err(failed)?;
                stream.set_nodelay(true).map_err(failed)?;
                let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
                tokio::spawn(connection);
                sender
            }
        };
        Ok(self.sender.insert(sender))
    }

    /// Sends one request; the status and body of its answer, whatever the status.
    pub async fn answer(
        &mut self,
        method: Method,
        path: &str,
        token: &str,
        body: Option<&Value>,
    ) -> Result<(u16, Bytes), Error> {
        let bearer = format!("Bearer {token}");
        let body = body.map(serde_json::to_vec).transpose()?.map(Bytes::from);
        self.exchange(method, path, (!token.is_empty()).then_some(bearer.as_str()), body).await
    }

    /// Sends one request with this `Authorization` header and JSON as it is; the status and body of its answer.
    pub async fn exchange(
        &mut self,
        method: Method,
        path: &str,
        authorization: Option<&str>,
        body: Option<Bytes>,
    ) -> Result<(u16, Bytes), Error> {
        let host = self.address.clone();
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, host);
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(body.map(Full::new).unwrap_or_default())?;
        let answer = self.sender().await?.send_request(request).await?;
        let status = answer.status().as_u16();
        Ok((status, answer.into_body().collect().await?.to_bytes()))
    }

    /// Sends one request; the body of its answer. A status other than 200 is an error.
    pub async fn call(
        &mut self,
        method: Method,
        path: &str,
        token: &str,
        body: Option<&Value>,
    ) -> Result<Bytes, Error> {
        match self.answer(method.clone(), path, token, body).await? {
            (200, body) => Ok(body),
            (status, body) => Err(Error::Refused {
                method,
                path: path.to_owned(),
                status,
                body: String::from_utf8_lossy(&body).into_owned(),
            }),
        }
    }
}
