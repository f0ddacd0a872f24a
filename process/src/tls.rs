//! Server certificates: self-signed, from a directory, reloaded when the files change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use notify::{RecursiveMode, Watcher};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_util::sync::CancellationToken;

/// Pause after a file event until the pair is read: certificate and key change one after the other.
const RELOAD_DEBOUNCE: Duration = Duration::from_millis(250);

static TLS13_ONLY: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// Why a listener has no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No certificate could be made.
    #[error("cannot make a self-signed certificate")]
    SelfSigned(#[from] rcgen::Error),
    /// A file is missing or not PEM.
    #[error("cannot read {path}: {cause}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// Certificate and key do not fit, or a parameter is out of range.
    #[error("TLS configuration: {0}")]
    Rustls(#[from] rustls::Error),
    /// `--tls-min-version` names no version.
    #[error("unknown TLS version {0:?}: use VersionTLS12 or VersionTLS13")]
    Version(String),
    /// `--tls-cipher-suites` names no suite.
    #[error("unknown or unsupported cipher suite {0:?}: use one of {1}")]
    CipherSuite(String, String),
    /// The directory cannot be watched.
    #[error("cannot watch the certificate directory: {0}")]
    Watch(#[from] notify::Error),
}

/// What a listener offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerTls {
    /// Directory with `tls.crt` and `tls.key`; `None` makes a self-signed certificate.
    pub directory: Option<PathBuf>,
    /// Go's name of the lowest version (`VersionTLS12`); empty is rustls' default (1.2).
    pub min_version: String,
    /// Go's names of the allowed suites; empty allows all that rustls has.
    pub cipher_suites: Vec<String>,
    /// Protocols by ALPN, best first, such as `h2`.
    pub alpn: Vec<Vec<u8>>,
    /// File with the certificates that sign clients' ones; with it a client needs one.
    pub client_ca: Option<PathBuf>,
}

/// A server configuration whose certificate can be replaced while it serves.
#[derive(Clone, Debug)]
pub struct Reloadable {
    /// Hand this to the acceptor.
    pub config: Arc<ServerConfig>,
    certificate: Arc<Current>,
    directory: Option<PathBuf>,
}

#[derive(Debug)]
struct Current(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl ServerTls {
    /// Builds the configuration.
    ///
    /// # Errors
    /// Names the file, version or suite that is wrong.
    pub fn build(&self) -> Result<Reloadable, TlsError> {
        let provider = self.provider()?;
        let key = match &self.directory {
            Some(directory) => load(directory, &provider)?,
            None => self_signed(&provider)?,
        };
        let certificate = Arc::new(Current(ArcSwap::from_pointee(key)));
        let provider = Arc::new(provider);
        let clients = match &self.client_ca {
            Some(file) => client_verifier(file, &provider)?,
            None => WebPkiClientVerifier::no_client_auth(),
        };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(self.versions()?)?
            .with_client_cert_verifier(clients)
            .with_cert_resolver(Arc::clone(&certificate) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols.clone_from(&self.alpn);
        Ok(Reloadable {
            config: Arc::new(config),
            certificate,
            directory: self.directory.clone(),
        })
    }

    fn versions(&self) -> Result<&'static [&'static SupportedProtocolVersion], TlsError> {
        match self.min_version.as_str() {
            // Go's 1.0 and 1.1 are a lower bound; the lowest that rustls speaks satisfies it.
            "" | "VersionTLS10" | "VersionTLS11" | "VersionTLS12" => Ok(rustls::ALL_VERSIONS),
            "VersionTLS13" => Ok(TLS13_ONLY),
            other => Err(TlsError::Version(other.to_owned())),
        }
    }

    fn provider(&self) -> Result<CryptoProvider, TlsError> {
        let mut provider = aws_lc_rs::default_provider();
        if self.cipher_suites.is_empty() {
            return Ok(provider);
        }
        let known = provider.cipher_suites.clone();
        provider.cipher_suites = self
            .cipher_suites
            .iter()
            .map(|name| {
                known
                    .iter()
                    .find(|suite| go_name(suite) == *name)
                    .copied()
                    .ok_or_else(|| {
                        TlsError::CipherSuite(
                            name.clone(),
                            known.iter().map(go_name).collect::<Vec<_>>().join(", "),
                        )
                    })
            })
            .collect::<Result<_, _>>()?;
        Ok(provider)
    }
}

/// Go writes `TLS_AES_128_GCM_SHA256` where rustls writes `TLS13_AES_128_GCM_SHA256`.
fn go_name(suite: &SupportedCipherSuite) -> String {
    suite
        .suite()
        .as_str()
        .unwrap_or_default()
        .replace("TLS13_", "TLS_")
}

fn self_signed(provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let key = PrivateKeyDer::Pkcs8(certified.signing_key.serialize_der().into());
    Ok(CertifiedKey::from_der(
        vec![certified.cert.der().clone()],
        key,
        provider,
    )?)
}

fn client_verifier(
    file: &Path,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let fail = |cause: String| TlsError::File {
        path: file.to_owned(),
        cause,
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|error| fail(error.to_string()))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| fail(error.to_string()))
}

/// The certificates of a PEM file, at least one.
fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let fail = |cause: String| TlsError::File {
        path: file.to_owned(),
        cause,
    };
    let found = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| fail(error.to_string()))?;
    if found.is_empty() {
        return Err(fail("no certificate in it".to_owned()));
    }
    Ok(found)
}

fn load(directory: &Path, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let (certificate, key) = (directory.join("tls.crt"), directory.join("tls.key"));
    let chain = certificates(&certificate)?;
    let fail = |path: &Path, cause: String| TlsError::File {
        path: path.to_owned(),
        cause,
    };
    let key = PrivateKeyDer::from_pem_file(&key).map_err(|error| fail(&key, error.to_string()))?;
    Ok(CertifiedKey::from_der(chain, key, provider)?)
}

impl Reloadable {
    /// Watches the certificate directory until `shutdown`. A pair that cannot be read keeps the
    /// old one in service and is logged.
    ///
    /// # Errors
    /// When the directory cannot be watched.
    pub fn watch(&self, shutdown: CancellationToken) -> Result<(), TlsError> {
        let Some(directory) = self.directory.clone() else {
            return Ok(());
        };
        let (events, mut changed) = tokio::sync::mpsc::channel::<()>(1);
        // Kubernetes swaps a symlink of the directory: watching the files would miss it.
        let mut watcher = notify::recommended_watcher(move |_| {
            // A full channel means that a reload is due already.
            let _ = events.try_send(());
        })?;
        watcher.watch(&directory, RecursiveMode::NonRecursive)?;
        let current = Arc::clone(&self.certificate);
        tokio::spawn(async move {
            let _watcher = watcher;
            loop {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    event = changed.recv() => if event.is_none() { return },
                }
                tokio::time::sleep(RELOAD_DEBOUNCE).await;
                match load(&directory, &aws_lc_rs::default_provider()) {
                    Ok(key) => {
                        current.0.store(Arc::new(key));
                        tracing::info!(directory = %directory.display(), "certificate reloaded");
                    }
                    Err(error) => tracing::warn!(%error, "the new certificate is not used"),
                }
            }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn write_pair(directory: &Path) -> Vec<u8> {
        let pair = rcgen::generate_simple_self_signed(vec!["epp.test".to_owned()]).unwrap();
        std::fs::write(directory.join("tls.crt"), pair.cert.pem()).unwrap();
        std::fs::write(directory.join("tls.key"), pair.signing_key.serialize_pem()).unwrap();
        pair.cert.der().to_vec()
    }

    #[test]
    fn without_a_directory_the_certificate_is_self_signed() {
        let tls = ServerTls {
            alpn: vec![b"h2".to_vec()],
            ..ServerTls::default()
        }
        .build()
        .unwrap();
        assert_eq!(tls.config.alpn_protocols, [b"h2"]);
    }

    #[test]
    fn wrong_files_versions_and_suites_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let tls = ServerTls {
            directory: Some(directory.path().into()),
            ..ServerTls::default()
        };
        assert!(tls.build().unwrap_err().to_string().contains("tls.crt"));
        let tls = ServerTls {
            min_version: "TLS1.3".into(),
            ..ServerTls::default()
        };
        assert!(tls.build().unwrap_err().to_string().contains("VersionTLS13"));
        let tls = ServerTls {
            cipher_suites: vec!["TLS_RSA_WITH_RC4_128_SHA".into()],
            ..ServerTls::default()
        };
        assert!(
            tls.build()
                .unwrap_err()
                .to_string()
                .contains("TLS_AES_128_GCM_SHA256")
        );
        let tls = ServerTls {
            cipher_suites: vec!["TLS_AES_128_GCM_SHA256".into()],
            ..ServerTls::default()
        };
        assert_eq!(
            tls.build().unwrap().config.crypto_provider().cipher_suites.len(),
            1
        );
    }

    #[tokio::test]
    async fn a_changed_pair_is_served_and_a_broken_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        write_pair(directory.path());
        let tls = ServerTls {
            directory: Some(directory.path().into()),
            ..ServerTls::default()
        }
        .build()
        .unwrap();
        tls.watch(CancellationToken::new()).unwrap();
        let served = || tls.certificate.0.load().cert[0].to_vec();
        std::fs::write(directory.path().join("tls.crt"), "broken").unwrap();
        let replaced = write_pair(directory.path());
        let end = Instant::now() + Duration::from_secs(20);
        while served() != replaced {
            assert!(Instant::now() < end, "the new certificate was not picked up");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
