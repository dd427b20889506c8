//! The recorded peer: some servers in this program, which tell of their rooms over TLS as fast as they can.

use super::hall::{Hall, Signer, Unmade};
use crate::link::Error;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicUsize, Ordering},
};
use std::time::Instant;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// How many servers there are.
pub const SERVERS: u8 = 4;
/// How many there are where one server sends to many.
pub const MANY_SERVERS: u8 = 20;

/// The addresses of so many servers, which are their names' hosts.
fn hosts(servers: u8) -> impl Iterator<Item = std::net::Ipv4Addr> {
    (1..=servers).map(|last| std::net::Ipv4Addr::new(127, 0, 1, last))
}

/// The servers and their rooms.
pub struct Peer {
    /// The servers.
    pub signers: Vec<Signer>,
    halls: Mutex<HashMap<String, Hall>>,
    arrived: Mutex<HashMap<String, Instant>>,
    /// How many messages each of the servers was sent.
    heard: Vec<AtomicUsize>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(path: &Path, error: impl std::fmt::Display) -> Error {
    Error::File(path.display().to_string(), std::io::Error::other(error.to_string()))
}

/// Writes a certificate authority and a certificate of it for the servers into a directory.
pub fn certify(directory: &Path) -> Result<(), Error> {
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose, SanType,
    };
    let failed = |error: rcgen::Error| failed(directory, error);
    let mut params = CertificateParams::new(Vec::new()).map_err(failed)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // To OpenSSL a certificate whose issuer has its own name is its own issuer.
    params.distinguished_name.push(DnType::CommonName, "authority of the bench");
    let authority =
        CertifiedIssuer::self_signed(params, KeyPair::generate().map_err(failed)?).map_err(failed)?;
    let mut params = CertificateParams::new(Vec::new()).map_err(failed)?;
    params.distinguished_name.push(DnType::CommonName, "recorded peer");
    params.subject_alt_names = hosts(MANY_SERVERS).map(|host| SanType::IpAddress(host.into())).collect();
    let key = KeyPair::generate().map_err(failed)?;
    let signed = params.signed_by(&key, &authority).map_err(failed)?;
    for (name, text) in
        [("authority.pem", authority.pem()), ("peer.pem", signed.pem()), ("peer.key", key.serialize_pem())]
    {
        let path = directory.join(name);
        std::fs::write(&path, text).map_err(|error| Error::File(path.display().to_string(), error))?;
    }
    Ok(())
}

impl Peer {
    /// Starts so many servers on a port of their addresses, with the certificate of a directory.
    pub async fn start(directory: &Path, port: u16, servers: u8) -> Result<Arc<Self>, Error> {
        let (certificate, key) = (directory.join("peer.pem"), directory.join("peer.key"));
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&certificate)
            .and_then(Iterator::collect)
            .map_err(|error| failed(&certificate, error))?;
        let private = PrivateKeyDer::from_pem_file(&key).map_err(|error| failed(&key, error))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|config| config.with_no_client_auth().with_single_cert(chain, private))
            .map_err(|error| failed(&certificate, error))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let signers =
            hosts(servers).map(|host| Signer::new(&format!("{host}:{port}"))).collect::<Result<_, _>>();
        let peer = Arc::new(Self {
            signers: signers.map_err(|error| failed(directory, error))?,
            halls: Mutex::default(),
            arrived: Mutex::default(),
            heard: (0..servers).map(|_| AtomicUsize::new(0)).collect(),
        });
        for (at, host) in hosts(servers).enumerate() {
            let cannot = |error| Error::Connect(format!("{host}:{port}"), error);
            let listener = TcpListener::bind((host, port)).await.map_err(cannot)?;
            tokio::spawn(peer.clone().accept(at, listener, acceptor.clone()));
        }
        Ok(peer)
    }

    async fn accept(self: Arc<Self>, at: usize, listener: TcpListener, acceptor: TlsAcceptor) {
        while let Ok((stream, _)) = listener.accept().await {
            let (peer, acceptor) = (self.clone(), acceptor.clone());
            tokio::spawn(async move {
                // Whoever is measured shows what went wrong in its log.
                let _ = stream.set_nodelay(true);
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = service_fn(|request| peer.clone().answer(at, request));
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    }

    /// Makes a room; its id.
    pub fn open(&self, name: &str, members: usize, first: usize) -> Result<String, Unmade> {
        self.open_with(name, members, first, json!({}))
    }

    /// Makes a room with more in its create event; its id.
    pub fn open_with(
        &self,
        name: &str,
        members: usize,
        first: usize,
        create: Value,
    ) -> Result<String, Unmade> {
        // The first makes the room; the order of the others does not matter.
        let mut turned: Vec<&Signer> = self.signers.iter().collect();
        turned.rotate_left(first % self.signers.len());
        let hall = Hall::of(&turned, name, members, create)?;
        let id = hall.id.clone();
        lock(&self.halls).insert(id.clone(), hall);
        Ok(id)
    }

    /// Does something with a room.
    pub fn with<T>(&self, room: &str, work: impl FnOnce(&mut Hall) -> T) -> Option<T> {
        lock(&self.halls).get_mut(room).map(work)
    }

    /// How many messages came to the server that was sent the fewest.
    pub fn heard_by_all(&self) -> usize {
        self.heard.iter().map(|heard| heard.load(Ordering::Relaxed)).min().unwrap_or_default()
    }

    /// When a message with this mark came.
    pub fn arrival(&self, mark: &str) -> Option<Instant> {
        lock(&self.arrived).get(mark).copied()
    }

    async fn answer(
        self: Arc<Self>,
        at: usize,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, hyper::Error> {
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let query = head.uri.query().unwrap_or_default();
        let decoded =
            |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
        let path: Vec<String> = head.uri.path().split('/').skip(2).map(decoded).collect();
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let found = self.find(at, &head.method, &path, query, &body);
        let (status, body) = found.map_or_else(
            || {
                (
                    StatusCode::NOT_FOUND,
                    Bytes::from_static(br#"{"errcode":"M_NOT_FOUND","error":"not here"}"#),
                )
            },
            |body| (StatusCode::OK, body),
        );
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = status;
        response
            .headers_mut()
            .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
        Ok(response)
    }

    fn find(&self, at: usize, method: &Method, path: &[&str], query: &str, body: &[u8]) -> Option<Bytes> {
        let signer = self.signers.get(at)?;
        let bytes = |value: Value| serde_json::to_vec(&value).ok().map(Bytes::from);
        let values = |name: &str| -> Vec<String> {
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            let wanted = pairs.filter(|(key, _)| *key == name).map(|(_, value)| value);
            wanted
                .map(|value| percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned())
                .collect()
        };
        let limit = || values("limit").first().and_then(|limit| limit.parse().ok()).unwrap_or(10);
        match (method.as_str(), path) {
            ("GET", ["key", "v2", "server", ..]) => signer.keys().ok().map(Bytes::from),
            ("GET", ["federation", "v1", "version"]) => {
                bytes(json!({ "server": { "name": "recorded peer", "version": "1" } }))
            }
            ("PUT", ["federation", "v1", "send", _]) => {
                self.receive(at, body);
                bytes(json!({ "pdus": {} }))
            }
            ("GET", ["federation", "v1", "make_join", room, user]) => {
                self.with(room, |hall| bytes(hall.proposal(user)))?
            }
            ("PUT", ["federation", "v2", "send_join", room, _]) => {
                let event: Value = serde_json::from_slice(body).ok()?;
                let partial = usize::from(values("omit_members") == ["true"]);
                self.with(room, |hall| {
                    hall.note(&event).ok()?;
                    hall.welcome.get(partial).cloned()
                })?
            }
            ("GET", ["federation", "v1", "state", room]) => self.with(room, |hall| hall.state.clone()),
            ("GET", ["federation", "v1", "state_ids", room]) => {
                self.with(room, |hall| hall.state_ids.clone())
            }
            ("GET", ["federation", "v1", "event", id]) => {
                let halls = lock(&self.halls);
                let found = halls.values().find_map(|hall| hall.told([&(*id).to_owned()]).pop().cloned())?;
                bytes(
                    json!({ "origin": signer.name, "origin_server_ts": super::hall::now(), "pdus": [found] }),
                )
            }
            ("GET", ["federation", "v1", "event_auth", room, _]) => {
                self.with(room, |hall| bytes(json!({ "auth_chain": hall.auth_chain() })))?
            }
            ("POST", ["federation", "v1", "get_missing_events", room]) => {
                let asked: Value = serde_json::from_slice(body).ok()?;
                let ids = |name: &str| -> Vec<String> {
                    asked[name]
                        .as_array()
                        .into_iter()
                        .flatten()
                        .filter_map(Value::as_str)
                        .map(str::to_owned)
                        .collect()
                };
                let limit =
                    asked["limit"].as_u64().and_then(|limit| usize::try_from(limit).ok()).unwrap_or(10);
                self.with(room, |hall| {
                    let latest = ids("latest_events").iter().flat_map(|id| hall.prev(id)).collect();
                    bytes(json!({ "events": hall.before(latest, &ids("earliest_events"), limit) }))
                })?
            }
            ("GET", ["federation", "v1", "backfill", room]) => self.with(room, |hall| {
                let mut pdus = hall.before(values("v"), &[], limit());
                // The latest first.
                pdus.reverse();
                bytes(json!({ "origin": signer.name, "origin_server_ts": super::hall::now(), "pdus": pdus }))
            })?,
            ("GET", ["federation", "v1", "user", "devices", user]) => {
                bytes(json!({ "user_id": user, "stream_id": 1, "devices": [] }))
            }
            _ => None,
        }
    }

    /// Takes a transaction: notes when its messages came, and that the rooms go on.
    fn receive(&self, at: usize, body: &[u8]) {
        let now = Instant::now();
        let Ok(transaction) = serde_json::from_slice::<Value>(body) else { return };
        let pdus = transaction["pdus"].as_array().into_iter().flatten();
        let messages =
            pdus.filter(|pdu| pdu["type"] == "m.room.message" && pdu["content"]["body"].is_string());
        if let Some(heard) = self.heard.get(at) {
            heard.fetch_add(messages.count(), Ordering::Relaxed);
        }
        // All have the rooms together.
        if at > 0 && self.signers.len() > usize::from(SERVERS) {
            return;
        }
        for pdu in transaction["pdus"].as_array().into_iter().flatten() {
            let text = pdu["content"]["body"].as_str().unwrap_or_default();
            if let Some(mark) = text.strip_prefix("mark:").and_then(|rest| rest.split(' ').next()) {
                lock(&self.arrived).entry(mark.to_owned()).or_insert(now);
            }
            if let Some(room) = pdu["room_id"].as_str() {
                // One that cannot be followed on is as if it had not come.
                self.with(room, |hall| hall.note(pdu).ok());
            }
        }
    }
}
