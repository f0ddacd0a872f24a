//! The client side of TLS: who is trusted.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// Why nobody can be trusted.
#[derive(Debug, thiserror::Error)]
pub enum ClientTlsError {
    /// The system has no certificate authorities.
    #[error("no certificate authority of the system can be read ({0}); name a bundle by SSL_CERT_FILE")]
    NoRoots(String),
    /// No version or cipher is left.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

/// A client that takes any certificate, or those of the system's authorities (`SSL_CERT_FILE`, `SSL_CERT_DIR`).
///
/// # Errors
/// There are no authorities.
pub fn client_config(takes_any: bool) -> Result<ClientConfig, ClientTlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    if takes_any {
        let any = Arc::new(AnyCertificate::new(provider));
        let builder = builder.dangerous().with_custom_certificate_verifier(any);
        return Ok(builder.with_no_client_auth());
    }
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (taken, _) = roots.add_parsable_certificates(found.certs);
    if taken == 0 {
        let causes: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        return Err(ClientTlsError::NoRoots(causes.join("; ")));
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Takes any certificate (`insecureSkipVerify`): pods rarely have ones for their addresses.
#[derive(Debug)]
pub struct AnyCertificate(Arc<CryptoProvider>);

impl AnyCertificate {
    /// Checks signatures by this provider.
    pub fn new(provider: Arc<CryptoProvider>) -> Self {
        Self(provider)
    }
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
