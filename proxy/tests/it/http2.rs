//! Clients that speak HTTP/2 from their first byte.

use std::sync::atomic::Ordering;
use std::time::Duration;

use http_body_util::BodyExt;
use llmd_proxy::{Limits, Outcome};
use tokio::io::AsyncWriteExt;

use crate::support::{Target, TestRoute, WINDOW, client, http2, poll_until, proxy, send, text};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const MEBI: usize = 1024 * 1024;

#[tokio::test]
async fn requests_share_a_connection_and_reach_targets_side_by_side() {
    let target = Target::start().await;
    let proxy = proxy(&TestRoute::to(&[target.address]), Limits::default()).await;
    let sender = http2(client(proxy.address).await).await;
    let (first, second) = (sender.clone(), sender);
    let first = tokio::spawn(async move { text(send(&first, "hello").await).await });
    let mut one = target.accept().await;
    let (head, body) = one.request().await.unwrap();
    assert!(head.starts_with("post /x?y=1 http/1.1\r\n"), "{head}");
    assert!(
        head.contains("host: llm.example\r\n") && head.contains("content-length: 5\r\n"),
        "{head}"
    );
    assert_eq!(body, b"hello");

    // The first request is still open.
    let second = tokio::spawn(async move { text(send(&second, "hello").await).await });
    let mut two = target.accept().await;
    two.request().await.unwrap();
    two.send(OK).await;
    assert_eq!(second.await.unwrap(), "ok");
    one.send(OK).await;
    assert_eq!(first.await.unwrap(), "ok");
}

#[tokio::test]
async fn a_slow_reader_holds_the_target_back() {
    let target = Target::start().await;
    let route = TestRoute::to(&[target.address]);
    let proxy = proxy(&route, Limits::default()).await;
    let sender = http2(client(proxy.address).await).await;
    let answer = tokio::spawn(async move { send(&sender, "hello").await });
    let mut connection = target.accept().await;
    connection.request().await.unwrap();
    let total = 64 * MEBI;
    connection
        .send(format!("HTTP/1.1 200 OK\r\ncontent-length: {total}\r\n\r\n"))
        .await;
    let writing = tokio::spawn(async move {
        let chunk = vec![b'x'; MEBI];
        for _ in 0..total / MEBI {
            connection.send(&chunk).await;
        }
        connection
    });
    let mut body = answer.await.unwrap().into_body();
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        // What was pulled and not read is the window, hyper's buffer and the chunk at hand.
        let held = route.pulled.load(Ordering::Relaxed) - read;
        assert!(
            held <= WINDOW as usize + 2 * MEBI,
            "{held} bytes are held for a client that did not ask"
        );
        read += frame.unwrap().into_data().unwrap().len();
    }
    assert_eq!(read, total);
    drop(writing.await.unwrap());
    assert_eq!(route.outcome().await, Outcome::Complete);
}

#[tokio::test]
async fn a_client_that_opens_no_window_is_left() {
    let target = Target::start().await;
    let route = TestRoute::to(&[target.address]);
    let limits = Limits {
        client_stall: Duration::from_millis(100),
        ..Limits::default()
    };
    let proxy = proxy(&route, limits).await;
    let sender = http2(client(proxy.address).await).await;
    let waiting = sender.clone();
    let answer = tokio::spawn(async move { send(&waiting, "hello").await });
    let mut connection = target.accept().await;
    connection.request().await.unwrap();
    connection
        .send("HTTP/1.1 200 OK\r\ncontent-length: 1048576\r\n\r\n")
        .await;
    connection.send(vec![b'x'; 512 * 1024]).await;
    // The window is full, hyper keeps the rest of a chunk, and nobody reads.
    let answer = answer.await.unwrap();
    assert_eq!(route.outcome().await, Outcome::ClientGone);
    connection.closed().await;
    assert!(answer.into_body().collect().await.is_err(), "the stream is reset");
    // Its connection lives.
    let again = tokio::spawn(async move { text(send(&sender, "hello").await).await });
    let mut next = target.accept().await;
    next.request().await.unwrap();
    next.send(OK).await;
    assert_eq!(again.await.unwrap(), "ok");
}

#[tokio::test]
async fn a_client_that_resets_its_stream_ends_the_request() {
    let target = Target::start().await;
    let route = TestRoute::to(&[target.address]);
    let proxy = proxy(&route, Limits::default()).await;
    let sender = http2(client(proxy.address).await).await;
    let waiting = tokio::spawn(async move { send(&sender, "hello").await });
    let mut connection = target.accept().await;
    connection.request().await.unwrap();
    waiting.abort();
    connection.closed().await;
    assert_eq!(route.outcome().await, Outcome::ClientGone);
}

#[tokio::test]
async fn while_closing_a_connection_finishes_its_streams_and_takes_no_more() {
    let target = Target::start().await;
    let proxy = proxy(&TestRoute::to(&[target.address]), Limits::default()).await;
    let sender = http2(client(proxy.address).await).await;
    let open = sender.clone();
    let answer = tokio::spawn(async move { text(send(&open, "hello").await).await });
    let mut connection = target.accept().await;
    connection.request().await.unwrap();
    proxy.closing.cancel();
    // Whoever comes on a new connection is served.
    let other = http2(client(proxy.address).await).await;
    let served = tokio::spawn(async move { text(send(&other, "hello").await).await });
    let mut next = target.accept().await;
    next.request().await.unwrap();
    next.send(OK).await;
    assert_eq!(served.await.unwrap(), "ok");
    connection.send(OK).await;
    assert_eq!(answer.await.unwrap(), "ok");
    poll_until(|| sender.is_closed().then_some(())).await;
}

#[tokio::test]
async fn half_a_preface_has_a_deadline() {
    let target = Target::start().await;
    let limits = Limits {
        request_head: Duration::from_millis(50),
        ..Limits::default()
    };
    let proxy = proxy(&TestRoute::to(&[target.address]), limits).await;
    let mut stream = client(proxy.address).await;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM").await.unwrap();
    crate::support::closed(&mut stream).await;
}
