//! Servers that federate: each is named by its address, and all trust one certificate authority of the tests.

use crate::{Server, keeper::Keeper, server::free_address};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use std::{path::PathBuf, sync::OnceLock};

/// Files of the certificate authority and of a certificate for 127.0.0.1 and localhost.
#[derive(Debug)]
pub struct Certificates {
    /// The authority's certificate.
    pub authority: PathBuf,
    /// The servers' certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Certificates {
    /// Those of this program.
    ///
    /// # Panics
    /// They cannot be made.
    pub fn get() -> &'static Self {
        static MADE: OnceLock<Certificates> = OnceLock::new();
        MADE.get_or_init(|| {
            let mut params = CertificateParams::new(Vec::new()).expect("no names");
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            params.distinguished_name.push(DnType::CommonName, "authority of the tests");
            let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key"))
                .expect("an authority");
            let key = KeyPair::generate().expect("a key");
            let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
            let certificate = CertificateParams::new(names)
                .expect("names")
                .signed_by(&key, &issuer)
                .expect("a certificate");
            let root = &Keeper::get().root;
            let file = |name: &str, text: &str| {
                let path = root.join(name);
                std::fs::write(&path, text).expect("a file");
                path
            };
            Self {
                authority: file("authority.pem", &issuer.pem()),
                certificate: file("certificate.pem", &certificate.pem()),
                key: file("key.pem", &key.serialize_pem()),
            }
        })
    }
}

impl Server {
    /// Starts a server that federates with others of the tests, with these settings on top of the usual ones. Its name
    /// is its address.
    ///
    /// # Panics
    /// It does not get ready.
    #[must_use]
    pub fn federating(program: &str, settings: &[(&str, &str)]) -> Self {
        let server = Self::prepare_federating(program, settings);
        server.start_again();
        server
    }

    /// The same, not started yet.
    ///
    /// # Panics
    /// Its directory cannot be made.
    #[must_use]
    pub fn prepare_federating(program: &str, settings: &[(&str, &str)]) -> Self {
        let certificates = Certificates::get();
        let name = free_address().to_string();
        let path = |path: &PathBuf| path.display().to_string();
        let (authority, certificate, key) =
            (path(&certificates.authority), path(&certificates.certificate), path(&certificates.key));
        let mut all = vec![
            ("federation.enabled", "true"),
            ("server.name", name.as_str()),
            ("listeners.federation_tls", name.as_str()),
            ("listeners.tls_certificate_file", certificate.as_str()),
            ("listeners.tls_key_file", key.as_str()),
            ("federation.certificate_authorities_file", authority.as_str()),
            ("federation.allow_addresses", "127.0.0.0/8"),
            ("log.level", "info,ruma_state_res=warn"),
        ];
        all.extend_from_slice(settings);
        Self::prepare(program, &all)
    }
}
