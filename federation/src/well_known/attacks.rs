//! `/.well-known/matrix/server` of a hostile host.

use super::*;
use crate::{
    address::Guard,
    dns::{Dns, Service},
};
use futures::future::ready;
use rcgen::{CertificateParams, KeyPair, SanType};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{PrivateKeyDer, pem::PemObject},
};
use std::{
    net::{IpAddr, Ipv4Addr},
    sync::atomic::{AtomicUsize, Ordering},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

/// Nothing is looked up.
#[derive(Debug)]
struct Nowhere;

impl Dns for Nowhere {
    fn addresses<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, String>> {
        ready(Err("there are no names".to_owned())).boxed()
    }

    fn services<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Vec<Service>> {
        ready(Vec::new()).boxed()
    }
}

/// A host whose every answer is this; after it, `more` without end.
struct Host {
    name: String,
    web: OverWeb,
    asked: Arc<AtomicUsize>,
}

impl Host {
    async fn new(answer: &'static str, more: &'static [u8]) -> Self {
        let address = Ipv4Addr::LOCALHOST;
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = vec![SanType::IpAddress(address.into())];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let provider = || Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let private = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
        let server = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
            .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        // What is special beside this address stays out of reach.
        let guard = Guard::new(vec!["127.0.0.1/32".parse().unwrap()]);
        let connector = Connector::new(Arc::new(Nowhere), guard, client, Duration::from_secs(5));
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        let name = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(AtomicUsize::new(0));
        let (count, acceptor) = (asked.clone(), TlsAcceptor::from(Arc::new(server)));
        let own = name.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let (count, own) = (count.clone(), own.clone());
                tokio::spawn(async move {
                    let mut request = [0; 4_096];
                    if stream.read(&mut request).await.is_err() {
                        return;
                    }
                    count.fetch_add(1, Ordering::Relaxed);
                    let answer = answer.replace("{host}", &own).replace('\n', "\r\n");
                    let mut sent = stream.write_all(answer.as_bytes()).await;
                    while sent.is_ok() && !more.is_empty() {
                        sent = stream.write_all(more).await;
                    }
                });
            }
        });
        Self { name, web: OverWeb(Arc::new(connector)), asked }
    }

    async fn said(&self) -> Option<String> {
        self.web.fetch(&self.name).await.map(|found| found.to.to_string())
    }
}

const HONEST: &str =
    "HTTP/1.1 200 OK\nConnection: close\nContent-Length: 25\n\n{\"m.server\": \"b.test:1\" }";

#[tokio::test]
async fn attack_56_a_well_known_that_is_huge_compressed_or_no_json_is_none() {
    assert_eq!(Host::new(HONEST, b"").await.said().await.as_deref(), Some("b.test:1"));
    for (answer, more) in [
        ("HTTP/1.1 200 OK\nConnection: close\n\n{\"m.server\": \"b.test:1\" }", &[b' '; 4_096][..]),
        ("HTTP/1.1 200 OK\nConnection: close\nContent-Length: 99999999\n\n", b"x"),
        (
            "HTTP/1.1 200 OK\nConnection: close\nContent-Encoding: gzip\nContent-Length: 25\n\n{\"m.server\": \"b.test:1\" }",
            b"",
        ),
        ("HTTP/1.1 200 OK\nConnection: close\nContent-Length: 3\n\n[1]", b""),
        ("HTTP/1.1 200 OK\nConnection: close\nContent-Length: 19\n\n{\"m.server\": \"a b\"}", b""),
        ("HTTP/1.1 500 Oh\nConnection: close\nContent-Length: 25\n\n{\"m.server\": \"b.test:1\" }", b""),
        ("HTTP/1.1 200 OK\nX: ", &[b'x'; 4_096]),
    ] {
        let host = Host::new(answer, more).await;
        assert_eq!(host.said().await, None, "{answer}");
    }
}

#[tokio::test]
async fn attack_56_redirects_of_a_well_known_end() {
    let host =
        Host::new("HTTP/1.1 302 Found\nConnection: close\nLocation: /again\nContent-Length: 0\n\n", b"")
            .await;
    assert_eq!(host.said().await, None);
    assert_eq!(host.asked.load(Ordering::Relaxed), REDIRECTS + 1);
}

#[tokio::test]
async fn attack_57_and_58_redirects_of_a_well_known_lead_to_no_special_address() {
    for place in [
        "https://127.0.0.2/x",
        "https://[::1]/x",
        "https://10.0.0.1/x",
        "https://169.254.169.254/x",
        "http://{host}/x",
        "file:///etc/passwd",
        "https://user@{host}/x",
    ] {
        let answer =
            format!("HTTP/1.1 302 Found\nConnection: close\nLocation: {place}\nContent-Length: 0\n\n");
        let host = Host::new(answer.leak(), b"").await;
        assert_eq!(host.said().await, None, "{place}");
        assert_eq!(host.asked.load(Ordering::Relaxed), 1, "{place}");
    }
}
