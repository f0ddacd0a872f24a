//! Tunnels that are streams of an HTTP/2 connection: extended `CONNECT` (RFC 8441).

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use hyper::ext::Protocol;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use llmd_proxy::{Limits, Outcome};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::support::{
    Accepted, Proxy, Target, TestRoute, client, closed, http2, poll_until, proxy, send, text,
};

const AGREE: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: a\r\nsec-websocket-protocol: realtime\r\n\r\n";

/// A client that knows the proxy's settings: before, it must not ask.
async fn settled(proxy: &Proxy) -> SendRequest<Full<Bytes>> {
    let mut sender = http2(client(proxy.address).await).await;
    let request = Request::get("http://llm.example/refused").body(Full::default());
    let answer = sender.send_request(request.unwrap()).await.unwrap();
    assert_eq!(answer.status(), 404);
    sender
}

fn ask(protocol: &'static str) -> Request<Full<Bytes>> {
    Request::connect("http://llm.example/v1/realtime?model=m")
        .version(Version::HTTP_2)
        .extension(Protocol::from_static(protocol))
        .header("sec-websocket-version", "13")
        .header("sec-websocket-protocol", "realtime")
        .body(Full::default())
        .unwrap()
}

/// A client and a target that speak with each other.
async fn tunnel(sender: &SendRequest<Full<Bytes>>, target: &Target) -> (TokioIo<Upgraded>, Accepted) {
    let mut asking = sender.clone();
    let answer = tokio::spawn(async move { asking.send_request(ask("websocket")).await });
    let mut connection = target.accept().await;
    let (head, _) = connection.request().await.unwrap();
    for line in [
        "get /v1/realtime?model=m http/1.1\r\n",
        "host: llm.example\r\n",
        "connection: upgrade\r\n",
        "upgrade: websocket\r\n",
        "sec-websocket-version: 13\r\n",
        "sec-websocket-protocol: realtime\r\n",
    ] {
        assert!(head.contains(line), "no {line:?} in {head}");
    }
    let key = head.split_once("sec-websocket-key: ").unwrap().1;
    assert_eq!(key.lines().next().unwrap().len(), 24, "16 bytes in base64");
    connection.send(AGREE).await;
    let mut answer = answer.await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["sec-websocket-protocol"], "realtime");
    for gone in ["sec-websocket-accept", "upgrade", "connection"] {
        assert!(!answer.headers().contains_key(gone), "{gone}");
    }
    (
        TokioIo::new(hyper::upgrade::on(&mut answer).await.unwrap()),
        connection,
    )
}

async fn crosses(from: &mut (impl AsyncWrite + Unpin), to: &mut (impl AsyncRead + Unpin)) {
    let sent: Vec<u8> = (0..200_000_u32).map(|n| n as u8).collect();
    let mut received = vec![0; sent.len()];
    tokio::join!(
        async {
            from.write_all(&sent).await.unwrap();
            from.flush().await.unwrap();
        },
        async {
            to.read_exact(&mut received).await.unwrap();
        }
    );
    assert!(received == sent);
}

#[tokio::test]
async fn bytes_cross_both_ways_beside_other_streams() {
    let target = Target::start().await;
    let route = TestRoute::to(&[target.address]);
    let limits = Limits {
        client_idle: Duration::from_millis(100),
        ..Limits::default()
    };
    let proxy = proxy(&route, limits).await;
    let sender = settled(&proxy).await;
    let (mut stream, mut connection) = tunnel(&sender, &target).await;
    crosses(&mut stream, &mut connection.0).await;
    crosses(&mut connection.0, &mut stream).await;

    // A connection without a request is closed by now, the one with the tunnel is not.
    closed(&mut client(proxy.address).await).await;
    let beside = sender.clone();
    let beside = tokio::spawn(async move { text(send(&beside, "hello").await).await });
    let mut other = target.accept().await;
    other.request().await.unwrap();
    other.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    assert_eq!(beside.await.unwrap(), "ok");
    route.outcomes.lock().unwrap().clear();

    // One side may close first and still listen.
    stream.shutdown().await.unwrap();
    assert_eq!(connection.0.read(&mut [0; 1]).await.unwrap(), 0);
    crosses(&mut connection.0, &mut stream).await;
    assert!(route.outcomes.lock().unwrap().is_empty());
    drop(connection);
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
    assert_eq!(route.outcome().await, Outcome::Complete);
    poll_until(|| sender.is_closed().then_some(())).await;
}

async fn asked(proxy: &Proxy, request: Request<Full<Bytes>>) -> (Response<()>, String) {
    let mut sender = settled(proxy).await;
    let (head, body) = sender.send_request(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (
        Response::from_parts(head, ()),
        String::from_utf8(body.to_vec()).unwrap(),
    )
}

#[tokio::test]
async fn a_target_that_does_not_agree_is_no_websocket_to_the_client() {
    let refuses = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno";
    let target = Target::start().await.always(refuses);
    let refusing = proxy(&TestRoute::to(&[target]), Limits::default()).await;
    let (head, body) = asked(&refusing, ask("websocket")).await;
    assert_eq!((head.status().as_u16(), &*body), (403, "no"));

    let ignores = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let target = Target::start().await.always(ignores);
    let route = TestRoute::to(&[target]);
    let ignoring = proxy(&route, Limits::default()).await;
    let (head, body) = asked(&ignoring, ask("websocket")).await;
    assert_eq!(head.status(), 502, "{body}");
    assert!(body.contains("did not agree to a WebSocket"), "{body}");
    assert_eq!(route.outcome().await, Outcome::Rejected);
}

#[tokio::test]
async fn other_tunnels_are_refused() {
    let target = Target::start().await;
    let proxy = proxy(&TestRoute::to(&[target.address]), Limits::default()).await;
    let (head, body) = asked(&proxy, ask("connect-udp")).await;
    assert_eq!(head.status(), 501);
    assert!(body.contains("protocol connect-udp is not spoken"), "{body}");

    let request = Request::builder().method(Method::CONNECT).uri("llm.example:80");
    let (head, body) = asked(&proxy, request.body(Full::default()).unwrap()).await;
    assert_eq!(head.status(), 405, "{body}");
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_tunnel() {
    let target = Target::start().await;
    let route = TestRoute::to(&[target.address]);
    let proxy = proxy(&route, Limits::default()).await;
    let sender = settled(&proxy).await;
    let (stream, mut connection) = tunnel(&sender, &target).await;
    drop(stream);
    connection.closed().await;
    drop(connection);
    route.outcome().await;
}

#[tokio::test]
async fn a_drain_cuts_what_does_not_end() {
    let target = Target::start().await;
    let route = TestRoute::to(&[target.address]);
    let limits = Limits {
        drain: Duration::from_millis(50),
        ..Limits::default()
    };
    let mut proxy = proxy(&route, limits).await;
    let sender = settled(&proxy).await;
    let (mut stream, mut connection) = tunnel(&sender, &target).await;
    proxy.shutdown.cancel();
    let error = (&mut proxy.task).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("1 requests were cut off"), "{error}");
    connection.closed().await;
    // An end or an error: the connection is gone.
    assert!(!matches!(stream.read(&mut [0; 1]).await, Ok(1)));
    assert_eq!(route.outcome().await, Outcome::Complete);
}
