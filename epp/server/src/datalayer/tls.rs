//! TLS towards engines: their metrics ports, and the built-in proxy's requests.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use llmd_epp_core::plugins::datalayer::polled::Tls;
use llmd_process::tls_client::AnyCertificate;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// Why a source's TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing or no PEM.
    #[error("{field} '{path}' cannot be read: {source}")]
    Pem {
        /// Parameter that names the file.
        field: &'static str,
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: PemError,
    },
    /// The files do not make a configuration.
    #[error("TLS towards engines: {0}")]
    Config(#[from] rustls::Error),
}

/// The client side of a source.
pub(crate) fn client_config(tls: &Tls) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    // Read even when it is not used: a path that is set must be right.
    let mut roots = RootCertStore::empty();
    if let Some(path) = &tls.ca {
        for certificate in certificates("caCertPath", path)? {
            roots.add(certificate)?;
        }
    }
    let builder = if tls.skip_verify {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate::new(provider)))
    } else {
        builder.with_root_certificates(roots)
    };
    let config = match &tls.identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let key_der = PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::Pem {
                field: "clientKeyPath",
                path: key.clone(),
                source,
            })?;
            builder.with_client_auth_cert(certificates("clientCertPath", chain)?, key_der)?
        }
    };
    Ok(Arc::new(config))
}

fn certificates(field: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrap = |source| TlsError::Pem {
        field,
        path: path.to_owned(),
        source,
    };
    CertificateDer::pem_file_iter(path)
        .map_err(wrap)?
        .collect::<Result<_, _>>()
        .map_err(wrap)
}
