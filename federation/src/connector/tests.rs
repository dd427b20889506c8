use super::*;
use crate::dns::Service;
use futures::future::{FutureExt, ready};
use rustls::RootCertStore;
use std::net::IpAddr;
use tokio::net::TcpListener;

/// Every host has one address.
#[derive(Debug)]
struct Everywhere(IpAddr);

impl Dns for Everywhere {
    fn addresses<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, String>> {
        ready(Ok(vec![self.0])).boxed()
    }

    fn services<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Vec<Service>> {
        ready(Vec::new()).boxed()
    }
}

fn connector(allow: &[&str]) -> Connector {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let guard = Guard::new(allow.iter().map(|net| net.parse().unwrap()).collect());
    Connector::new(Arc::new(Everywhere([127, 0, 0, 1].into())), guard, tls, Duration::from_secs(2))
}

async fn ask(connector: &Connector, whither: &Whither, url: &str) -> String {
    let request = Request::get(url).body(Bytes::new()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    connector.ask(whither, request, deadline, 100).await.unwrap_err().to_string()
}

#[tokio::test]
async fn attack_57_and_58_a_name_that_leads_to_a_special_address_is_not_connected_to() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    for whither in [&Whither::Server(Pins::default()), &Whither::Web] {
        for host in ["rebound.test", "127.0.0.1", "[::ffff:127.0.0.1]", "[::1]"] {
            let error = ask(&connector(&[]), whither, &format!("https://{host}:{port}/")).await;
            assert!(error.contains("allow_addresses"), "{host}: {error}");
        }
    }
    let connected = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
    assert!(connected.is_err(), "someone connected");
}

#[tokio::test]
async fn an_address_that_is_allowed_is_connected_to_and_its_certificate_is_checked() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let connector = connector(&["127.0.0.0/8"]);
    let url = format!("https://rebound.test:{port}/");
    let (error, accepted) = tokio::join!(ask(&connector, &Whither::Web, &url), async {
        drop(listener.accept().await.unwrap());
        true
    });
    assert!(accepted && error.contains("TLS"), "{error}");
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let error =
        ask(&connector(&["127.0.0.1/32"]), &Whither::Web, &format!("https://127.0.0.1:{port}/")).await;
    assert!(error.contains("too long"), "{error}");
}

#[tokio::test]
async fn attack_57_and_58_only_https_is_spoken_and_a_url_has_no_user() {
    for url in ["http://a.test/", "https://user@a.test/"] {
        assert!(!ask(&connector(&[]), &Whither::Web, url).await.contains("allow_addresses"), "{url}");
    }
}
