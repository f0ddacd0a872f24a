//! TLS towards clients.

use std::sync::Arc;
use std::time::Duration;

use llmd_proxy::Limits;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::{Proxy, Target, TestRoute, client, closed, http2, proxy_with, send, text};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A server's side with a certificate of its own, and a client's side that believes it.
pub fn pair(server_alpn: &[&str]) -> (Arc<ServerConfig>, RootCertStore) {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(certified.signing_key.serialize_der().into());
    let mut server = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    server.alpn_protocols = server_alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let mut roots = RootCertStore::empty();
    roots.add(certified.cert.der().clone()).unwrap();
    (Arc::new(server), roots)
}

async fn connect(proxy: &Proxy, roots: &RootCertStore, alpn: &str) -> TlsStream<TcpStream> {
    let mut config = ClientConfig::builder()
        .with_root_certificates(roots.clone())
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.into()];
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, client(proxy.address).await)
        .await
        .unwrap()
}

#[tokio::test]
async fn clients_choose_the_protocol_by_alpn() {
    let target = Target::start().await;
    let (tls, roots) = pair(&["h2", "http/1.1"]);
    let proxy = proxy_with(&TestRoute::to(&[target.address]), Limits::default(), |server| {
        server.with_tls(tls)
    })
    .await;

    let sender = http2(connect(&proxy, &roots, "h2").await).await;
    let answer = tokio::spawn(async move { text(send(&sender, "hello").await).await });
    let mut connection = target.accept().await;
    let (head, _) = connection.request().await.unwrap();
    assert!(head.contains("x-forwarded-proto: https\r\n"), "{head}");
    connection.send(OK).await;
    assert_eq!(answer.await.unwrap(), "ok");

    let mut stream = connect(&proxy, &roots, "http/1.1").await;
    stream
        .write_all(b"GET /x HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    connection.request().await.unwrap();
    connection.send(OK).await;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_handshake_has_a_deadline_and_holds_nobody_up() {
    let target = Target::start().await.always(OK);
    let (tls, roots) = pair(&["h2"]);
    let limits = Limits {
        request_head: Duration::from_millis(500),
        ..Limits::default()
    };
    let proxy = proxy_with(&TestRoute::to(&[target]), limits, |server| server.with_tls(tls)).await;
    let mut silent = client(proxy.address).await;
    let mut plain = client(proxy.address).await;
    plain
        .write_all(b"GET /x HTTP/1.1\r\nhost: h\r\n\r\n")
        .await
        .unwrap();
    let sender = http2(connect(&proxy, &roots, "h2").await).await;
    assert_eq!(text(send(&sender, "hello").await).await, "ok");
    closed(&mut silent).await;
    closed(&mut plain).await;
}
