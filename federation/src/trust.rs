//! Which certificates are believed, and which one is shown.

use crate::Error;
use rustls::{
    ClientConfig, ConfigBuilder, RootCertStore,
    client::WantsClientCert,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::ParsedCertificate,
};
use sha2::{Digest, Sha256};
use std::{path::Path, sync::Arc};

/// TLS towards other servers: the operating system's authorities (`SSL_CERT_FILE` and `SSL_CERT_DIR` are heeded) with
/// those of the configuration, and the certificate this server shows, if it has one.
///
/// # Errors
/// [`Error::Setup`] if a configured file cannot be used.
pub fn client(config: &postern_config::Federation) -> Result<ClientConfig, Error> {
    let builder = builder(config)?;
    let client = match (&config.client_certificate_file, &config.client_key_file) {
        (Some(chain), Some(key)) => {
            let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, &error))?;
            builder
                .with_client_auth_cert(certificates(chain)?, private)
                .map_err(|error| unusable(chain, &error))?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(with_protocols(client))
}

/// TLS towards others: the same authorities, and no certificate is shown.
///
/// # Errors
/// [`Error::Setup`] if a configured file cannot be used.
pub fn anonymous(config: &postern_config::Federation) -> Result<ClientConfig, Error> {
    Ok(with_protocols(builder(config)?.with_no_client_auth()))
}

fn with_protocols(mut client: ClientConfig) -> ClientConfig {
    client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    client
}

fn builder(
    config: &postern_config::Federation,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, Error> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    for error in native.errors {
        tracing::warn!(%error, "a certificate authority of the operating system cannot be read");
    }
    roots.add_parsable_certificates(native.certs);
    if let Some(path) = &config.certificate_authorities_file {
        for authority in certificates(path)? {
            roots.add(authority).map_err(|error| unusable(path, &error))?;
        }
    }
    if roots.is_empty() {
        tracing::warn!("no certificate authority is known: no other server can be reached");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Setup(error.to_string()))?;
    Ok(builder.with_root_certificates(roots))
}

/// The digest (SHA-256) of the public key in a certificate: of its `SubjectPublicKeyInfo`, which outlives the renewal of a
/// certificate (RFC 7469, section 2.4). Nothing if it is no certificate.
#[must_use]
pub fn key_digest(certificate: &CertificateDer<'_>) -> Option<[u8; 32]> {
    let certificate = ParsedCertificate::try_from(certificate).ok()?;
    Some(Sha256::digest(certificate.subject_public_key_info()).into())
}

fn unusable(path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::Setup(format!("{}: {error}", path.display()))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| unusable(path, &error))?;
    if found.is_empty() { Err(unusable(path, &"there is no certificate in it")) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, PublicKeyData};

    #[test]
    fn a_key_has_one_digest_in_every_certificate() {
        let key = KeyPair::generate().unwrap();
        let certificate = |name: &str| {
            CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap().der().clone()
        };
        let digest: [u8; 32] = Sha256::digest(key.subject_public_key_info()).into();
        assert_eq!(key_digest(&certificate("a.example")), Some(digest));
        assert_eq!(key_digest(&certificate("b.example")), Some(digest));
        assert_eq!(key_digest(&CertificateDer::from(vec![0x30, 0])), None);
    }
}
