//! Servers that federate: each on a loopback address of its own, with TLS, all trusting one authority made for the tests.
//!
//! A server's name is its address, `127.0.0.N:port`, so no names have to be looked up.

use crate::{Gate, Network, Server, keeper::Keeper, network, server::free_address_on};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicU8, Ordering},
    },
};

/// The authority of this program's servers.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: PathBuf,
}

impl Authority {
    fn get() -> &'static Self {
        static AUTHORITY: OnceLock<Authority> = OnceLock::new();
        AUTHORITY.get_or_init(|| {
            let mut params = CertificateParams::new(Vec::new()).expect("parameters");
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            // OpenSSL takes a certificate with the name of its issuer for one that is signed by itself.
            params.distinguished_name.push(DnType::CommonName, "authority of the tests");
            let key = KeyPair::generate().expect("a key");
            let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
            let file = Keeper::get().root.join("authority.pem");
            write(&file, &issuer.pem());
            Self { issuer, file }
        })
    }

    /// Writes a certificate for an address, and its key.
    fn certify(&self, address: IpAddr, certificate: &Path, key: &Path) {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.subject_alt_names = vec![SanType::IpAddress(address)];
        let pair = KeyPair::generate().expect("a key");
        let signed = params.signed_by(&pair, &self.issuer).expect("a certificate");
        write(certificate, &signed.pem());
        write(key, &pair.serialize_pem());
    }
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// Where a server that federates can be: an address that is its name, and a certificate the others trust.
#[derive(Debug, Clone)]
pub struct Seat {
    /// The address.
    pub address: SocketAddr,
    /// The file of the certificate.
    pub certificate: PathBuf,
    /// The file of its key.
    pub key: PathBuf,
    /// The file of the certificate of the authority that all are certified by.
    pub authority: PathBuf,
}

impl Seat {
    /// One that nobody else has.
    ///
    /// # Panics
    /// The certificate cannot be made.
    #[must_use]
    pub fn take() -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self::at(free_address_on(Ipv4Addr::new(127, 0, 0, 2 + number % 250)))
    }

    /// The one at an address.
    ///
    /// # Panics
    /// The certificate cannot be made.
    #[must_use]
    pub fn at(address: SocketAddr) -> Self {
        let root = &Keeper::get().root;
        let [certificate, key] = ["pem", "key"].map(|end| root.join(format!("{address}.{end}")));
        let authority = Authority::get();
        authority.certify(address.ip(), &certificate, &key);
        Self { address, certificate, key, authority: authority.file.clone() }
    }

    /// A gate before the address, and where the server has to listen then.
    pub(crate) fn gate(&self) -> (SocketAddr, Gate) {
        let IpAddr::V4(host) = self.address.ip() else { unreachable!("a loopback address of version 4") };
        let behind = free_address_on(host);
        (behind, Gate::between(self.address, behind))
    }
}

impl Server {
    /// Starts a server that federates with all others started like this, with these settings on top.
    ///
    /// # Panics
    /// It does not get ready.
    #[must_use]
    pub fn federating(program: &str, settings: &[(&str, &str)]) -> Self {
        Self::federating_at(program, &Seat::take(), settings)
    }

    /// The same for a server at this seat.
    ///
    /// # Panics
    /// It does not get ready.
    #[must_use]
    pub fn federating_at(program: &str, seat: &Seat, settings: &[(&str, &str)]) -> Self {
        let server = Self::prepare_federating(program, seat, settings);
        server.start_again();
        server
    }

    /// Starts a server on a host of a network, which federates with those on the others, with these settings on top.
    ///
    /// # Panics
    /// It does not get ready, or there is no such host.
    #[must_use]
    pub fn on_host(program: &str, network: &Network, host: usize, settings: &[(&str, &str)]) -> Self {
        assert!(host < network.hosts(), "there is no host {host}");
        let seat = Seat::at(network::federation_address(host));
        let server = Self::prepare_federating(program, &seat, settings)
            .moved(network::on(host), network::client_addresses(host));
        server.start_again();
        server
    }

    /// Starts a server that federates, and that others reach through a gate.
    ///
    /// # Panics
    /// It does not get ready.
    #[must_use]
    pub fn federating_behind_a_gate(program: &str) -> (Self, Gate) {
        let seat = Seat::take();
        let (behind, gate) = seat.gate();
        let behind = behind.to_string();
        let settings = [("listeners.federation_tls", behind.as_str())];
        let server = Self::prepare_federating(program, &seat, &settings);
        server.start_again();
        (server, gate)
    }

    /// A server that federates, at a seat taken before, with these settings on top. It is not started yet.
    ///
    /// # Panics
    /// Its directory cannot be made.
    #[must_use]
    pub fn seated(program: &str, seat: &Seat, settings: &[(&str, &str)]) -> Self {
        Self::prepare_federating(program, seat, settings)
    }

    fn prepare_federating(program: &str, seat: &Seat, settings: &[(&str, &str)]) -> Self {
        let name = seat.address.to_string();
        let shown = |path: &Path| path.display().to_string();
        let files = [shown(&seat.certificate), shown(&seat.key), shown(&seat.authority)];
        let mut all = vec![
            ("federation.enabled", "true"),
            ("server.name", name.as_str()),
            ("listeners.federation_tls", name.as_str()),
            ("listeners.tls_certificate_file", files[0].as_str()),
            ("listeners.tls_key_file", files[1].as_str()),
            ("federation.certificate_authorities_file", files[2].as_str()),
            ("federation.allow_addresses", "127.0.0.0/8,10.66.0.0/24"),
            ("federation.backoff_min_ms", "50"),
            ("federation.backoff_max_ms", "1000"),
        ];
        all.extend_from_slice(settings);
        Self::prepare(program, &all)
    }
}

/// Two servers that federate.
///
/// # Panics
/// They do not get ready.
#[must_use]
pub fn pair(program: &str) -> [Server; 2] {
    [(), ()].map(|()| Server::federating(program, &[]))
}
