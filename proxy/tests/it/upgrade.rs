//! Requests that leave HTTP for a WebSocket.

use std::time::Duration;

use llmd_proxy::{Limits, Outcome};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Accepted, Proxy, Target, TestRoute, client, closed, proxy, raw, read_head, refusing};

const ASK: &str = "GET /v1/realtime?model=m HTTP/1.1\r\nhost: h\r\nconnection: keep-alive, Upgrade\r\nupgrade: WebSocket\r\nsec-websocket-key: k\r\nsec-websocket-version: 13\r\n\r\n";
const AGREE: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: a\r\n\r\n";

/// A client and a target that speak with each other.
async fn tunnel(proxy: &Proxy, target: &Target) -> (TcpStream, Accepted) {
    let mut stream = client(proxy.address).await;
    stream.write_all(ASK.as_bytes()).await.unwrap();
    let mut connection = target.accept().await;
    let (head, _) = connection.request().await.unwrap();
    for line in [
        "get /v1/realtime?model=m http/1.1\r\n",
        "connection: upgrade\r\n",
        "upgrade: websocket\r\n",
        "sec-websocket-key: k\r\n",
        "x-forwarded-for: 127.0.0.1\r\n",
    ] {
        assert!(head.contains(line), "no {line:?} in {head}");
    }
    connection.send(AGREE).await;
    let head = read_head(&mut stream).await.unwrap();
    assert!(
        head.starts_with("http/1.1 101") && head.contains("sec-websocket-accept: a"),
        "{head}"
    );
    assert!(
        head.contains("connection: upgrade") && head.contains("upgrade: websocket"),
        "{head}"
    );
    (stream, connection)
}

async fn crosses(from: &mut TcpStream, to: &mut TcpStream) {
    let sent: Vec<u8> = (0..100_000_u32).map(|n| n as u8).collect();
    let mut received = vec![0; sent.len()];
    tokio::join!(async { from.write_all(&sent).await.unwrap() }, async {
        to.read_exact(&mut received).await.unwrap();
    });
    assert!(received == sent);
}

#[tokio::test]
async fn bytes_cross_both_ways_until_both_sides_close() {
    let target = Target::start().await;
    let route = TestRoute::to(&[refusing().await, target.address]);
    let proxy = proxy(&route, Limits::default()).await;
    let (mut stream, mut connection) = tunnel(&proxy, &target).await;
    crosses(&mut stream, &mut connection.0).await;
    crosses(&mut connection.0, &mut stream).await;
    // One side may close first and still listen.
    stream.shutdown().await.unwrap();
    assert_eq!(connection.0.read(&mut [0; 1]).await.unwrap(), 0);
    crosses(&mut connection.0, &mut stream).await;
    assert!(route.outcomes.lock().unwrap().is_empty());
    drop(connection);
    assert_eq!(route.outcome().await, Outcome::Complete);
    closed(&mut stream).await;
}

#[tokio::test]
async fn a_target_that_does_not_agree_answers_as_any_other() {
    let target = Target::start()
        .await
        .always(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno");
    let proxy = proxy(&TestRoute::to(&[target]), Limits::default()).await;
    let ask = ASK.replace(
        "\r\n\r\n",
        "\r\nx-last: 1\r\n\r\nGET /refused HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n",
    );
    let answer = raw(proxy.address, ask).await;
    assert!(
        answer.starts_with("HTTP/1.1 403") && answer.contains("HTTP/1.1 404"),
        "the connection still speaks HTTP: {answer}"
    );
}

#[tokio::test]
async fn other_protocols_are_not_let_through() {
    let target = Target::start().await;
    let route = TestRoute::to(&[target.address]);
    let proxy = proxy(&route, Limits::default()).await;
    let ask = "GET /x HTTP/1.1\r\nhost: h\r\nconnection: close, upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AA\r\n\r\n";
    let answer = tokio::spawn(raw(proxy.address, ask));
    let mut connection = target.accept().await;
    let (head, _) = connection.request().await.unwrap();
    assert!(
        !head.contains("upgrade") && !head.contains("http2-settings"),
        "{head}"
    );
    // Nor may a target leave HTTP by itself.
    connection.send(AGREE.replace("websocket", "h2c")).await;
    let answer = answer.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
}

#[tokio::test]
async fn a_side_that_fails_ends_the_other() {
    let target = Target::start().await;
    let route = TestRoute::to(&[target.address]);
    let proxy = proxy(&route, Limits::default()).await;
    let (stream, mut connection) = tunnel(&proxy, &target).await;
    stream.set_zero_linger().unwrap();
    drop(stream);
    connection.closed().await;
    assert_eq!(route.outcome().await, Outcome::ClientGone);

    route.outcomes.lock().unwrap().clear();
    let (mut stream, connection) = tunnel(&proxy, &target).await;
    connection.0.set_zero_linger().unwrap();
    drop(connection);
    closed(&mut stream).await;
    assert_eq!(route.outcome().await, Outcome::TargetFailed);
}

#[tokio::test]
async fn a_tunnel_in_which_nothing_passes_ends() {
    let target = Target::start().await;
    let route = TestRoute::to(&[target.address]);
    let limits = Limits {
        response_idle: Duration::from_millis(50),
        ..Limits::default()
    };
    let proxy = proxy(&route, limits).await;
    let (mut stream, mut connection) = tunnel(&proxy, &target).await;
    closed(&mut stream).await;
    connection.closed().await;
    assert_eq!(route.outcome().await, Outcome::Complete);
}

#[tokio::test]
async fn a_drain_waits_for_tunnels_and_then_cuts_them() {
    let target = Target::start().await;
    let route = TestRoute::to(&[target.address]);
    let mut patient = proxy(&route, Limits::default()).await;
    let (mut stream, mut connection) = tunnel(&patient, &target).await;
    patient.shutdown.cancel();
    crosses(&mut stream, &mut connection.0).await;
    drop((stream, connection));
    (&mut patient.task).await.unwrap().expect("a clean drain");

    let limits = Limits {
        drain: Duration::from_millis(50),
        ..Limits::default()
    };
    let mut short = proxy(&route, limits).await;
    let (mut stream, mut connection) = tunnel(&short, &target).await;
    short.shutdown.cancel();
    let error = (&mut short.task).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("1 requests were cut off"), "{error}");
    closed(&mut stream).await;
    connection.closed().await;
}
