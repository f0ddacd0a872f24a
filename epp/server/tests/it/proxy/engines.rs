//! Engines that speak HTTP/2, or TLS, with the whole role in front.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use llmd_process::tls::ServerTls;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::metrics_tls::Authority;
use crate::role::{PORTS, Role, proxy_port, refused};

use super::rig::{post, send_to, text};

const CHAT: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;

/// Tells how it was spoken with.
async fn tell(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let version = format!("{:?}", request.version());
    let body = request.into_body().collect().await;
    let length = body.map(|body| body.to_bytes().len()).unwrap_or_default();
    let told = format!(r#"{{"version":"{version}","length":{length}}}"#);
    Ok(Response::new(Full::from(told)))
}

async fn engine(tls: Option<TlsAcceptor>) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("binds");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let tls = tls.clone();
            tokio::spawn(async move {
                let http = auto::Builder::new(TokioExecutor::new());
                // How a connection ends is not what is looked at.
                match tls {
                    None => drop(
                        http.serve_connection(TokioIo::new(stream), service_fn(tell))
                            .await,
                    ),
                    Some(tls) => {
                        let Ok(stream) = tls.accept(stream).await else {
                            return;
                        };
                        drop(
                            http.serve_connection(TokioIo::new(stream), service_fn(tell))
                                .await,
                        );
                    }
                }
            });
        }
    });
    address
}

async fn ask(engine: SocketAddr, flags: &str) -> (u16, String) {
    let role = Role::start(format!(
        "{PORTS} --endpoints={engine} --proxy-port={} --proxy-bind-address=127.0.0.1 --drain-timeout=0s {flags}",
        proxy_port()
    ))
    .await;
    let request = post("/v1/chat/completions", &[], CHAT);
    let answer = send_to(role.addresses.proxy.expect("a proxy"), request).await;
    let status = answer.status().as_u16();
    let body = text(answer).await;
    role.running.abort();
    (status, body)
}

#[tokio::test]
async fn the_protocol_of_engines_is_a_flag() {
    let engine = engine(None).await;
    for (flags, version) in [("", "HTTP/1.1"), ("--proxy-engine-protocol=h2", "HTTP/2.0")] {
        let (status, body) = ask(engine, flags).await;
        let told = format!(r#"{{"version":"{version}","length":{}}}"#, CHAT.len());
        assert_eq!((status, body), (200, told), "{flags}");
    }
}

#[tokio::test]
async fn over_tls_an_engine_is_believed_by_its_ca_and_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let authority = Authority::new();
    authority.write_pair(directory.path());
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, authority.pem()).expect("written");
    let tls = ServerTls {
        directory: Some(directory.path().into()),
        alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        ..ServerTls::default()
    };
    let engine = engine(Some(TlsAcceptor::from(tls.build().expect("a pair").config))).await;
    let ca = format!("--proxy-engine-tls --proxy-engine-ca-file={}", ca.display());
    let named = format!("{ca} --proxy-engine-server-name=localhost");

    let (status, body) = ask(engine, &named).await;
    assert!(status == 200 && body.contains("HTTP/2.0"), "{body}");
    let (status, body) = ask(engine, &format!("{named} --proxy-engine-protocol=http/1.1")).await;
    assert!(status == 200 && body.contains("HTTP/1.1"), "{body}");
    let (status, _) = ask(engine, "--proxy-engine-tls --proxy-engine-insecure-skip-verify").await;
    assert_eq!(status, 200);
    // The certificate is not one for its address.
    let (status, body) = ask(engine, &ca).await;
    assert!(status == 502 && body.contains("certificate"), "{body}");

    let flags = "--proxy-engine-tls --proxy-engine-ca-file=/does/not/exist";
    let port = proxy_port();
    let error = refused(&format!(
        "{PORTS} --endpoints={engine} --proxy-port={port} {flags}"
    ))
    .await;
    assert!(
        error.starts_with("--proxy-engine-ca-file") && error.contains("/does/not/exist"),
        "{error}"
    );
}
