//! TLS: the certificate and key, and reading them again while running.

use postern_config::Listeners;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, RwLock},
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

/// The certificate in use.
pub struct Tls {
    certificates: PathBuf,
    key: PathBuf,
    current: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads certificate and key; nothing if none are configured.
    pub fn load(listeners: &Listeners) -> Result<Option<Arc<Self>>, Error> {
        let (Some(certificates), Some(key)) = (&listeners.tls_certificate_file, &listeners.tls_key_file)
        else {
            return Ok(None);
        };
        let current = RwLock::new(read(certificates, key)?);
        Ok(Some(Arc::new(Self { certificates: certificates.clone(), key: key.clone(), current })))
    }

    /// Reads the files again; connections made from then on get the new certificate.
    pub fn reload(&self) -> Result<(), Error> {
        let fresh = read(&self.certificates, &self.key)?;
        *self.current.write().unwrap_or_else(std::sync::PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// For accepting a connection now.
    pub fn acceptor(&self) -> TlsAcceptor {
        self.current.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone().into()
    }
}

fn read(certificates: &Path, key: &Path) -> Result<Arc<ServerConfig>, Error> {
    let file = |path: &Path, error: rustls::pki_types::pem::Error| Error::File {
        path: path.to_owned(),
        why: error.to_string(),
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificates)
        .and_then(Iterator::collect)
        .map_err(|error| file(certificates, error))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| file(key, error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, private)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
