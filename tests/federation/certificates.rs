//! The certificates a server shows to others and believes of them, and reading them again while it runs.

use crate::PROGRAM;
use postern_world::{Client, Seat, Server, free_address};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

/// How long something may take that happens soon.
const SOON: Duration = Duration::from_secs(30);

fn until(done: impl Fn() -> bool, what: &str) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < SOON, "it does not happen that {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn certificates(path: &Path) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(path).unwrap().collect::<Result<_, _>>().unwrap()
}

/// A server behind a TLS front that lets only those through who show a certificate of the tests' authority.
struct Fronted {
    server: Server,
    seat: Seat,
    /// The certificates that were shown, one for each connection that was let through.
    shown: Arc<Mutex<Vec<CertificateDer<'static>>>>,
}

impl Fronted {
    fn start() -> Self {
        let (seat, behind) = (Seat::take(), free_address());
        let settings = [("listeners.federation_tls", ""), ("listeners.federation", &behind.to_string())];
        let server = Server::federating_at(PROGRAM, &seat, &settings);
        let shown = Arc::default();
        front(&seat, behind, Arc::clone(&shown));
        Self { server, seat, shown }
    }

    fn last_shown(&self) -> Option<CertificateDer<'static>> {
        self.shown.lock().unwrap().last().cloned()
    }
}

/// Listens at `seat` until the program ends.
fn front(seat: &Seat, behind: SocketAddr, shown: Arc<Mutex<Vec<CertificateDer<'static>>>>) {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(&seat.authority));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
    let key = PrivateKeyDer::from_pem_file(&seat.key).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.unwrap())
        .with_single_cert(certificates(&seat.certificate), key)
        .unwrap();
    let (acceptor, address) = (TlsAcceptor::from(Arc::new(config)), seat.address);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = TcpListener::bind(address).await.unwrap();
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let (acceptor, shown) = (acceptor.clone(), shown.clone());
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let certificate = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
                    shown.lock().unwrap().push(certificate.into_owned());
                    let mut onward = TcpStream::connect(behind).await.unwrap();
                    // Either end may break it off.
                    let _ = copy_bidirectional(&mut stream, &mut onward).await;
                });
            }
        });
    });
}

/// A file for certificates beside a server's own, which a test writes anew.
fn file(seat: &Seat, name: &str) -> PathBuf {
    seat.certificate.with_file_name(format!("{}-{name}", seat.address))
}

/// Has a server read its certificates again; what it logs of that.
fn read_again(server: &Server) -> String {
    let before = server.log().len();
    server.signal("HUP");
    let said = || server.log().split_off(before);
    until(|| said().contains("certificates for other servers"), "the certificates are read again");
    said()
}

/// Whether a user of one server sees the profile of one of another.
fn sees(one: &Client, other: &Client) -> bool {
    one.get(&format!("/_matrix/client/v3/profile/{}", other.id_in_path())).status() == 200
}

#[test]
fn a_server_that_asks_for_a_certificate_is_shown_the_configured_one() {
    let there = Fronted::start();
    let seat = Seat::take();
    let shown = [("certificate", &seat.certificate), ("key", &seat.key)];
    let settings =
        shown.map(|(what, path)| (format!("federation.client_{what}_file"), path.display().to_string()));
    let settings = settings.each_ref().map(|(key, value)| (key.as_str(), value.as_str()));
    let with = Server::federating(PROGRAM, &settings);
    let without = Server::federating(PROGRAM, &[]);
    let bob = there.server.register("bob");
    assert!(sees(&with.register("alice"), &bob));
    assert_eq!(there.last_shown().as_ref(), certificates(&seat.certificate).first());
    let connections = there.shown.lock().unwrap().len();
    assert!(!sees(&without.register("eve"), &bob), "who shows nothing is let through");
    assert_eq!(there.shown.lock().unwrap().len(), connections);
}

#[test]
fn the_certificate_for_other_servers_is_read_again_on_sighup_and_a_broken_file_changes_nothing() {
    let there = Fronted::start();
    let [first, second] = [Seat::take(), Seat::take()];
    let [certificate, key] = ["shown.pem", "shown.key"].map(|name| file(&there.seat, name));
    let put = |seat: &Seat| {
        std::fs::copy(&seat.certificate, &certificate).unwrap();
        std::fs::copy(&seat.key, &key).unwrap();
    };
    put(&first);
    let here = Server::federating(
        PROGRAM,
        &[
            ("federation.client_certificate_file", &certificate.display().to_string()),
            ("federation.client_key_file", &key.display().to_string()),
            ("log.level", "info"),
        ],
    );
    let (alice, bob) = (here.register("alice"), there.server.register("bob"));
    assert!(sees(&alice, &bob));
    assert_eq!(there.last_shown().as_ref(), certificates(&first.certificate).first());
    put(&second);
    let said = read_again(&here);
    assert!(said.contains("were read again"), "{said}");
    assert!(sees(&alice, &bob), "with a new connection");
    assert_eq!(there.last_shown().as_ref(), certificates(&second.certificate).first());
    let connections = there.shown.lock().unwrap().len();
    std::fs::write(&certificate, "no certificate").unwrap();
    let said = read_again(&here);
    assert!(said.contains("stay in use") && said.contains(&certificate.display().to_string()), "{said}");
    assert!(sees(&alice, &bob), "with the connection there was");
    assert_eq!(there.shown.lock().unwrap().len(), connections);
}

#[test]
fn the_authorities_of_other_servers_are_read_again_on_sighup_and_a_missing_file_changes_nothing() {
    let there = Server::federating(PROGRAM, &[]);
    let seat = Seat::take();
    let authorities = file(&seat, "authorities.pem");
    // Somebody's certificate, who has certified nobody.
    std::fs::copy(Seat::take().certificate, &authorities).unwrap();
    let path = authorities.display().to_string();
    let settings = [("federation.certificate_authorities_file", path.as_str()), ("log.level", "info")];
    let here = Server::federating_at(PROGRAM, &seat, &settings);
    let (alice, bob) = (here.register("alice"), there.register("bob"));
    assert!(!sees(&alice, &bob));
    std::fs::copy(&seat.authority, &authorities).unwrap();
    let said = read_again(&here);
    assert!(said.contains("were read again"), "{said}");
    until(|| sees(&alice, &bob), "the other server is believed");
    std::fs::remove_file(&authorities).unwrap();
    let said = read_again(&here);
    assert!(said.contains("stay in use") && said.contains(&path), "{said}");
    assert!(sees(&alice, &bob));
}
