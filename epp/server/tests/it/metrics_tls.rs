//! `--metrics-cert-dir` and `--metrics-client-ca-file`: TLS on the metrics port.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::picker::PATIENCE;
use crate::role::{PORTS, Role, refused, until_async, write_config};

/// An authority and what it signs.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: Certificate,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate");
        let issuer = Issuer::new(params, key);
        Self { issuer, certificate }
    }

    fn sign(&self) -> (Certificate, KeyPair) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
        let signed = params.signed_by(&key, &self.issuer).expect("signed");
        (signed, key)
    }

    /// Its own certificate.
    pub(crate) fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// Writes what a port shows.
    pub(crate) fn write_pair(&self, directory: &Path) {
        let (certificate, key) = self.sign();
        std::fs::write(directory.join("tls.crt"), certificate.pem()).expect("written");
        std::fs::write(directory.join("tls.key"), key.serialize_pem()).expect("written");
    }
}

/// A page over TLS, or why there is none.
async fn get(role: &Role, trusted: &Authority, own: Option<&Authority>) -> Result<String, String> {
    get_from(role.addresses.metrics, "/metrics", trusted, own).await
}

/// A page of `address` over TLS, or why there is none.
pub(crate) async fn get_from(
    address: SocketAddr,
    path: &str,
    trusted: &Authority,
    own: Option<&Authority>,
) -> Result<String, String> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.certificate.der().clone()).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let config = match own {
        None => config.with_no_client_auth(),
        Some(authority) => {
            let (certificate, key) = authority.sign();
            let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
            config
                .with_client_auth_cert(vec![certificate.der().clone()], key)
                .expect("a pair")
        }
    };
    let stream = TcpStream::connect(("127.0.0.1", address.port()))
        .await
        .expect("connects");
    let name = ServerName::try_from("localhost").expect("a name");
    let talk = async {
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut page = Vec::new();
        // Without a close notification the page is whole nevertheless: its head has its length.
        match stream.read_to_end(&mut page).await {
            Err(error) if page.is_empty() => return Err(error),
            _ => {}
        }
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&page).into_owned())
    };
    tokio::time::timeout(PATIENCE, talk)
        .await
        .expect("in time")
        .map_err(|error| error.to_string())
}

#[tokio::test]
async fn the_page_is_encrypted_its_certificate_followed_and_clients_prove_who_they_are() {
    let directory = tempfile::tempdir().expect("a directory");
    let (server, clients, stranger) = (Authority::new(), Authority::new(), Authority::new());
    server.write_pair(directory.path());
    let ca = directory.path().join("clients.pem");
    std::fs::write(&ca, clients.certificate.pem()).expect("written");
    let config = write_config(directory.path(), &[]);
    let flags = format!(
        "{PORTS} --secure-serving=false --config-file={config} --metrics-cert-dir={}",
        directory.path().display()
    );
    let open = Role::start(flags.clone()).await;
    let page = get(&open, &server, None).await.expect("a page");
    assert!(page.contains("llm_d_epp_info"), "{page}");
    let untrusted = get(&open, &stranger, None).await.expect_err("another authority");
    assert!(untrusted.contains("certificate"), "{untrusted}");
    let plain = open.get("/metrics").await;
    assert!(!plain.contains("llm_d_epp_info"), "{plain}");

    let closed = Role::start(format!("{flags} --metrics-client-ca-file={}", ca.display())).await;
    assert!(get(&closed, &server, Some(&clients)).await.is_ok());
    assert!(get(&closed, &server, Some(&stranger)).await.is_err());
    assert!(get(&closed, &server, None).await.is_err());

    stranger.write_pair(directory.path());
    until_async(async || get(&open, &stranger, None).await.ok()).await;
    open.running.abort();
    closed.running.abort();
}

#[tokio::test]
async fn wrong_files_are_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = write_config(directory.path(), &[]);
    let flags = format!("{PORTS} --config-file={config} --metrics-cert-dir=/does/not/exist");
    let error = refused(&flags).await;
    assert!(
        error.starts_with("--metrics-cert-dir") && error.contains("/does/not/exist/tls.crt"),
        "{error}"
    );
    Authority::new().write_pair(directory.path());
    let flags = format!(
        "{PORTS} --config-file={config} --metrics-cert-dir={} --metrics-client-ca-file=/no/ca.pem",
        directory.path().display()
    );
    let error = refused(&flags).await;
    assert!(error.contains("/no/ca.pem"), "{error}");
}
