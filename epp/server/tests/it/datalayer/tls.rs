//! Metrics pages over TLS.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use llmd_epp::datalayer::Source;
use llmd_epp_core::plugins::datalayer::metrics_data_source::SOURCE;
use llmd_epp_core::plugins::datalayer::polled::PolledSource;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::{source, start};
use crate::metrics_server::{spec, vllm_page};
use crate::wait::{until, until_true};

#[tokio::test]
async fn https_pages_are_read_with_and_without_verification() {
    let key = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("certificate");
    let directory = tempfile::tempdir().expect("directory");
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, key.cert.pem()).expect("written");
    let private = rustls::pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der()).expect("key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![key.cert.der().clone()], private)
        .expect("server config");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("binds");
    let port = listener.local_addr().expect("address").port();
    let served = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&served);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, count) = (acceptor.clone(), Arc::clone(&count));
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    return;
                };
                let page = vllm_page(4, 0, 0.0);
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{page}", page.len());
                let mut request = [0; 4096];
                while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                    count.fetch_add(1, Ordering::Relaxed);
                    stream.write_all(answer.as_bytes()).await.expect("written");
                }
            });
        }
    });

    let trusting = start(vec![source("{scheme: https}")]);
    let checking = format!(
        "{{scheme: https, insecureSkipVerify: false, caCertPath: {}}}",
        ca.display()
    );
    let checking = start(vec![source(&checking)]);
    let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("certificate");
    let wrong = directory.path().join("wrong.pem");
    std::fs::write(&wrong, other.cert.pem()).expect("written");
    let refusing = format!(
        "{{scheme: https, insecureSkipVerify: false, caCertPath: {}}}",
        wrong.display()
    );
    let refusing = start(vec![source(&refusing)]);
    for rig in [&trusting, &checking, &refusing] {
        rig.layer.set_endpoints(vec![spec("a", port)]);
    }
    for rig in [&trusting, &checking] {
        until_true("scraped", || rig.layer.snapshot().waiting[0] == 4).await;
    }
    let error = until("refused", || {
        refusing.layer.status(Instant::now())[0].last_error.clone()
    })
    .await;
    assert!(error.contains("certificate"), "{error}");
    assert_eq!(refusing.scraped("a"), None);
    assert!(served.load(Ordering::Relaxed) >= 2);
}

#[test]
fn missing_tls_files_are_named() {
    let parameters =
        serde_yaml::from_str("{scheme: https, caCertPath: /does/not/exist.pem}").expect("parameters");
    let source = PolledSource::new(SOURCE, &parameters).expect("valid");
    let strict =
        serde_yaml::from_str("{scheme: https, insecureSkipVerify: false, caCertPath: /does/not/exist.pem}");
    let strict = PolledSource::new(SOURCE, &strict.expect("parameters")).expect("valid");
    assert!(
        Source::new(source, Vec::new()).is_err(),
        "a file that is named must be readable"
    );
    let error = Source::new(strict, Vec::new())
        .expect_err("unreadable")
        .to_string();
    assert!(
        error.starts_with("caCertPath '/does/not/exist.pem' cannot be read"),
        "{error}"
    );
}
