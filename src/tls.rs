//! TLS: the certificate and key, and reading them again while running.

use postern_config::Listeners;
use rustls::{
    DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};
use tokio_rustls::TlsAcceptor;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read, or is no PEM.
    #[error("{path}: {why}")]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Certificate and key do not belong together, or are of a kind that cannot be used.
    #[error("the certificate cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
}

/// Whom a listener is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Clients, which are not asked for certificates: a browser would bother its user.
    Nothing,
    /// Servers, which may show one. Whose it has to be is decided once they say who they are.
    Certificate,
}

/// The certificate in use.
pub struct Tls {
    certificates: PathBuf,
    key: PathBuf,
    for_clients: RwLock<Arc<ServerConfig>>,
    for_servers: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads certificate and key; nothing if none are configured.
    pub fn load(listeners: &Listeners) -> Result<Option<Arc<Self>>, Error> {
        let (Some(certificates), Some(key)) = (&listeners.tls_certificate_file, &listeners.tls_key_file)
        else {
            return Ok(None);
        };
        let config = |asked| read(certificates, key, asked).map(RwLock::new);
        Ok(Some(Arc::new(Self {
            for_clients: config(Asked::Nothing)?,
            for_servers: config(Asked::Certificate)?,
            certificates: certificates.clone(),
            key: key.clone(),
        })))
    }

    /// Reads the files again; connections made from then on get the new certificate.
    pub fn reload(&self) -> Result<(), Error> {
        let config = |asked| read(&self.certificates, &self.key, asked);
        let (for_clients, for_servers) = (config(Asked::Nothing)?, config(Asked::Certificate)?);
        *self.for_clients.write().unwrap_or_else(PoisonError::into_inner) = for_clients;
        *self.for_servers.write().unwrap_or_else(PoisonError::into_inner) = for_servers;
        Ok(())
    }

    /// For accepting a connection now.
    pub fn acceptor(&self, asked: Asked) -> TlsAcceptor {
        let current = match asked {
            Asked::Nothing => &self.for_clients,
            Asked::Certificate => &self.for_servers,
        };
        current.read().unwrap_or_else(PoisonError::into_inner).clone().into()
    }
}

/// Takes any certificate whose key the other side has. It proves nothing but that: who may have which is not decided here.
#[derive(Debug)]
struct Anybodys(Arc<CryptoProvider>);

impl ClientCertVerifier for Anybodys {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn read(certificates: &Path, key: &Path, asked: Asked) -> Result<Arc<ServerConfig>, Error> {
    let file = |path: &Path, error: rustls::pki_types::pem::Error| Error::File {
        path: path.to_owned(),
        why: error.to_string(),
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificates)
        .and_then(Iterator::collect)
        .map_err(|error| file(certificates, error))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| file(key, error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = match asked {
        Asked::Nothing => builder.with_no_client_auth(),
        Asked::Certificate => builder.with_client_cert_verifier(Arc::new(Anybodys(provider))),
    };
    let mut config = builder.with_single_cert(chain, private)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
