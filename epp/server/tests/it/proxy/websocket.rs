//! A WebSocket through the whole role: picked, tunnelled, and given back at its end.

use std::net::SocketAddr;

use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper::client::conn::http2;
use hyper::ext::Protocol;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::picker::PATIENCE;
use crate::role::{PORTS, Role, proxy_port};

async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match tokio::time::timeout(PATIENCE, stream.read_u8()).await {
            Ok(Ok(byte)) => head.push(byte),
            _ => break,
        }
    }
    String::from_utf8(head).expect("UTF-8").to_ascii_lowercase()
}

/// An engine that agrees to leave HTTP and sends back what it gets; it has no metrics.
async fn echoing_engine() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("binds");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let asked = head(&mut stream).await;
                if !asked.contains("upgrade: websocket") {
                    let refusal = b"HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
                    return stream.write_all(refusal).await;
                }
                let answer =
                    b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
                stream.write_all(answer).await?;
                let (mut reader, mut writer) = stream.split();
                tokio::io::copy(&mut reader, &mut writer).await.map(|_| ())
            });
        }
    });
    address
}

async fn role(engine: SocketAddr) -> Role {
    Role::start(format!(
        "{PORTS} --endpoints={engine} --metrics-endpoint-auth=false --proxy-port={} --proxy-bind-address=127.0.0.1 \
         --drain-timeout=0s",
        proxy_port()
    ))
    .await
}

async fn ends(role: Role) {
    role.shutdown.cancel();
    tokio::time::timeout(PATIENCE, role.running)
        .await
        .expect("ends in time")
        .expect("joins")
        .expect("in order");
}

#[tokio::test]
async fn over_http2_a_websocket_is_one_stream_of_several() {
    let role = role(echoing_engine().await).await;
    let stream = TcpStream::connect(role.addresses.proxy.expect("a proxy")).await;
    let handshake =
        http2::Builder::new(TokioExecutor::new()).handshake(TokioIo::new(stream.expect("connects")));
    let (mut sender, connection) = handshake.await.expect("speaks HTTP/2");
    tokio::spawn(connection);
    let health = Request::get("http://x/health").body(Empty::<Bytes>::new());
    let health = sender
        .send_request(health.expect("a request"))
        .await
        .expect("an answer");
    assert_eq!(health.status(), 200);
    let ask = Request::connect("http://x/v1/realtime?model=m").extension(Protocol::from_static("websocket"));
    let asked = sender
        .send_request(ask.body(Empty::new()).expect("a request"))
        .await;
    let mut answer = asked.expect("an answer");
    assert_eq!(answer.status(), 200);
    let mut stream = TokioIo::new(hyper::upgrade::on(&mut answer).await.expect("a tunnel"));
    stream.write_all(b"ping").await.expect("sent");
    let mut echo = [0; 4];
    stream.read_exact(&mut echo).await.expect("an echo");
    assert_eq!(&echo, b"ping");
    drop(stream);
    ends(role).await;
}

#[tokio::test]
async fn a_websocket_is_tunnelled_and_holds_no_drain_up_once_it_is_over() {
    let engine = echoing_engine().await;
    let role = role(engine).await;
    let proxy = role.addresses.proxy.expect("a proxy");
    let mut stream = TcpStream::connect(proxy).await.expect("connects");
    stream
        .write_all(b"GET /v1/realtime?model=m HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n")
        .await
        .expect("sent");
    let answer = head(&mut stream).await;
    assert!(answer.starts_with("http/1.1 101"), "{answer}");
    stream.write_all(b"ping").await.expect("sent");
    let mut echo = [0; 4];
    stream.read_exact(&mut echo).await.expect("an echo");
    assert_eq!(&echo, b"ping");
    drop(stream);
    ends(role).await;
}
