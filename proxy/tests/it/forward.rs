//! Bytes, headers and connections on the good path.

use bytes::Bytes;
use llmd_proxy::{Limits, Outcome};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Target, TestRoute, client, poll_until, proxy, raw, read_body, read_head};

#[tokio::test]
async fn a_body_in_odd_chunks_arrives_byte_identical() {
    let target = Target::start().await;
    let route = TestRoute::to(&[target.address]);
    let proxy = proxy(&route, Limits::default()).await;
    let body: Vec<u8> = (0..1_200_007_u32).map(|i| (i * 31 % 251) as u8).collect();

    let sent = body.clone();
    let mut stream = client(proxy.address).await;
    let writer = tokio::spawn(async move {
        stream
            .write_all(b"POST /v1/x HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n")
            .await
            .unwrap();
        let mut rest = &sent[..];
        for size in [1, 2, 3, 61_999, 62_000, 62_001, 7].into_iter().cycle() {
            let (chunk, tail) = rest.split_at(size.min(rest.len()));
            stream
                .write_all(format!("{:x}\r\n", chunk.len()).as_bytes())
                .await
                .unwrap();
            stream.write_all(chunk).await.unwrap();
            stream.write_all(b"\r\n").await.unwrap();
            rest = tail;
            if rest.is_empty() {
                break;
            }
        }
        // A trailer section ends the body.
        stream.write_all(b"0\r\nx-checksum: 1\r\n\r\n").await.unwrap();
        stream
    });
    let mut connection = target.accept().await;
    let (head, received) = connection.request().await.unwrap();
    assert!(received == body, "{} of {} bytes", received.len(), body.len());
    assert!(
        head.contains(&format!("content-length: {}", body.len())),
        "{head}"
    );
    assert!(
        head.contains("x-forwarded-for: 127.0.0.1") && head.contains("host: h"),
        "{head}"
    );
    connection
        .send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: x-hop\r\nx-hop: 1\r\n\r\nok")
        .await;

    let mut stream = writer.await.unwrap();
    let head = read_head(&mut stream).await.unwrap();
    assert_eq!(read_body(&mut stream, &head).await, b"ok");
    assert!(head.contains("x-seen: yes") && !head.contains("x-hop"), "{head}");
    assert_eq!(route.outcome().await, Outcome::Complete);
}

#[tokio::test]
async fn a_streamed_request_reaches_the_target_before_its_end() {
    let target = Target::start().await;
    let route = TestRoute::to(&[target.address]).streaming();
    let proxy = proxy(&route, Limits::default()).await;
    let mut stream = client(proxy.address).await;
    stream
        .write_all(b"POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: 70000\r\n\r\nabc")
        .await
        .unwrap();
    let mut connection = target.accept().await;
    let head = read_head(&mut connection.0).await.unwrap();
    assert!(head.contains("content-length: 70000"), "{head}");
    let mut first = [0; 3];
    connection.0.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"abc");
    let rest = vec![b'd'; 69_997];
    let mut second = vec![0; rest.len()];
    let (sent, read) = tokio::join!(stream.write_all(&rest), connection.0.read_exact(&mut second));
    sent.unwrap();
    read.unwrap();
    assert_eq!(second, rest);
    connection.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert!(read_head(&mut stream).await.unwrap().starts_with("http/1.1 204"));
}

#[tokio::test]
async fn connections_to_a_target_are_reused() {
    connections_are_reused(|route| route).await;
}

#[tokio::test]
async fn connections_are_reused_for_small_bodies_that_nobody_looks_at() {
    connections_are_reused(TestRoute::streaming).await;
}

async fn connections_are_reused(change: impl Fn(TestRoute) -> TestRoute) {
    let target = Target::start().await;
    let route = change(TestRoute::to(&[target.address]));
    let proxy = proxy(&route, Limits::default()).await;
    let mut stream = client(proxy.address).await;
    let mut connection = None;
    for _ in 0..3 {
        stream
            .write_all(b"GET /v1/models HTTP/1.1\r\nhost: h\r\n\r\n")
            .await
            .unwrap();
        if connection.is_none() {
            connection = Some(target.accept().await);
        }
        let one = connection.as_mut().unwrap();
        assert!(
            one.request().await.is_some(),
            "the same connection carries the next request"
        );
        one.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        assert!(read_head(&mut stream).await.unwrap().starts_with("http/1.1 200"));
    }
}

#[tokio::test]
async fn an_event_stream_arrives_event_by_event() {
    let target = Target::start().await;
    let route = TestRoute::to(&[target.address]);
    let proxy = proxy(&route, Limits::default()).await;
    let mut stream = client(proxy.address).await;
    stream
        .write_all(b"POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n")
        .await
        .unwrap();
    let mut connection = target.accept().await;
    connection.request().await.unwrap();
    connection
        .send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    for event in ["data: 1\n\n", "data: 2\n\n"] {
        connection.send(format!("{:x}\r\n{event}\r\n", event.len())).await;
        if event.contains('1') {
            assert!(read_head(&mut stream).await.unwrap().starts_with("http/1.1 200"));
        }
        let mut framed = vec![0; event.len() + 5];
        stream.read_exact(&mut framed).await.unwrap();
        assert!(String::from_utf8(framed).unwrap().contains(event));
    }
    connection.send("0\r\n\r\n").await;
    assert_eq!(route.outcome().await, Outcome::Complete);
}

#[tokio::test]
async fn a_slow_reader_holds_the_target_back() {
    let target = Target::start().await;
    let route = TestRoute::to(&[target.address]);
    let proxy = proxy(&route, Limits::default()).await;
    let mut stream = client(proxy.address).await;
    stream
        .write_all(b"GET /x HTTP/1.1\r\nhost: h\r\n\r\n")
        .await
        .unwrap();
    let mut connection = target.accept().await;
    connection.request().await.unwrap();
    let total = 256 * 1024 * 1024_usize;
    connection
        .send(format!("HTTP/1.1 200 OK\r\ncontent-length: {total}\r\n\r\n"))
        .await;
    let chunk = Bytes::from(vec![b'x'; 1024 * 1024]);
    let mut written = 0;
    // The client reads nothing: the target must get stuck long before the end, because nothing in
    // between grows (kernel buffers on three sockets are all there is).
    while tokio::time::timeout(
        std::time::Duration::from_millis(500),
        connection.0.write_all(&chunk),
    )
    .await
    .is_ok()
    {
        written += chunk.len();
        assert!(
            written < total / 2,
            "the forwarder swallowed {written} bytes for a client that reads none"
        );
    }
    drop(stream);
    connection.closed().await;
    assert_eq!(route.outcome().await, Outcome::ClientGone);
}

#[tokio::test]
async fn head_answers_have_no_body_and_local_replies_are_json() {
    let target = Target::start()
        .await
        .always(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n");
    let route = TestRoute::to(&[target]);
    let proxy = proxy(&route, Limits::default()).await;
    let answer = raw(
        proxy.address,
        "HEAD /x HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n",
    )
    .await;
    assert!(
        answer.contains("content-length: 5") && answer.ends_with("\r\n\r\n"),
        "{answer}"
    );
    let answer = raw(
        proxy.address,
        "GET /refused HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n",
    )
    .await;
    assert!(
        answer.starts_with("HTTP/1.1 404") && answer.contains(r#""message":"no such path""#),
        "{answer}"
    );
}

#[tokio::test]
async fn shutdown_finishes_what_is_in_flight() {
    let target = Target::start().await;
    let route = TestRoute::to(&[target.address]);
    let mut proxy = proxy(&route, Limits::default()).await;
    let mut stream = client(proxy.address).await;
    stream
        .write_all(b"GET /x HTTP/1.1\r\nhost: h\r\n\r\n")
        .await
        .unwrap();
    let mut connection = target.accept().await;
    connection.request().await.unwrap();
    proxy.shutdown.cancel();
    let address = proxy.address;
    poll_until(|| std::net::TcpStream::connect(address).is_err().then_some(())).await;
    connection
        .send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        .await;
    let head = read_head(&mut stream).await.unwrap();
    assert_eq!(read_body(&mut stream, &head).await, b"ok");
    (&mut proxy.task).await.unwrap().expect("a clean drain");
}
