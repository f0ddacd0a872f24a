//! Every pause of a client and every wait for a target ends.

use std::time::Duration;

use llmd_proxy::{Limits, Outcome};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{DEADLINE, Target, TestRoute, client, closed, proxy, raw, read_body, read_head};

const SHORT: Duration = Duration::from_millis(100);
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const REQUEST: &str = "GET /x HTTP/1.1\r\nhost: h\r\n\r\n";

#[tokio::test]
async fn half_a_head_ends_the_connection() {
    let proxy = proxy(
        &TestRoute::to(&[Target::start().await.address]),
        Limits {
            request_head: SHORT,
            ..Limits::default()
        },
    )
    .await;
    let mut stream = client(proxy.address).await;
    stream
        .write_all(b"GET /x HTTP/1.1\r\nhost: h\r\nx-slow")
        .await
        .unwrap();
    closed(&mut stream).await;
}

#[tokio::test]
async fn half_a_second_head_ends_the_connection_and_other_requests_go_on() {
    let limits = Limits {
        request_head: SHORT,
        ..Limits::default()
    };
    let proxy = proxy(&TestRoute::to(&[Target::start().await.always(OK)]), limits).await;
    let mut stream = client(proxy.address).await;
    for _ in 0..2 {
        stream.write_all(REQUEST.as_bytes()).await.unwrap();
        let head = read_head(&mut stream).await.unwrap();
        assert_eq!(read_body(&mut stream, &head).await, b"ok");
    }
    stream.write_all(b"GET /x HT").await.unwrap();
    closed(&mut stream).await;
}

#[tokio::test]
async fn a_connection_without_requests_ends() {
    let limits = Limits {
        client_idle: SHORT,
        ..Limits::default()
    };
    let proxy = proxy(&TestRoute::to(&[Target::start().await.always(OK)]), limits).await;
    let mut silent = client(proxy.address).await;
    let mut kept = client(proxy.address).await;
    kept.write_all(REQUEST.as_bytes()).await.unwrap();
    let head = read_head(&mut kept).await.unwrap();
    assert_eq!(read_body(&mut kept, &head).await, b"ok");
    closed(&mut silent).await;
    closed(&mut kept).await;
}

#[tokio::test]
async fn a_request_in_flight_is_no_idle_connection() {
    let target = Target::start().await;
    let limits = Limits {
        request_head: Duration::from_millis(10),
        client_idle: Duration::from_millis(10),
        ..Limits::default()
    };
    let proxy = proxy(&TestRoute::to(&[target.address]), limits).await;
    let mut waiting = client(proxy.address).await;
    waiting.write_all(REQUEST.as_bytes()).await.unwrap();
    let mut connection = target.accept().await;
    connection.request().await.unwrap();
    // By the time that this one has been ended for being idle, the other one would have been as well.
    for _ in 0..3 {
        closed(&mut client(proxy.address).await).await;
    }
    connection.send(OK).await;
    assert!(read_head(&mut waiting).await.unwrap().starts_with("http/1.1 200"));
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_left() {
    let target = Target::start().await;
    let route = TestRoute::to(&[target.address]);
    let limits = Limits {
        client_stall: SHORT,
        ..Limits::default()
    };
    let proxy = proxy(&route, limits).await;
    let mut stream = client(proxy.address).await;
    stream.write_all(REQUEST.as_bytes()).await.unwrap();
    let mut connection = target.accept().await;
    connection.request().await.unwrap();
    connection
        .send("HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")
        .await;
    let chunk = vec![b'x'; 1024 * 1024];
    while connection.0.write_all(&chunk).await.is_ok() {}
    assert_eq!(route.outcome().await, Outcome::ClientGone);
}

#[tokio::test]
async fn the_whole_request_has_a_deadline_before_and_inside_its_answer() {
    let target = Target::start().await;
    let route = TestRoute::to(&[target.address]).resuming();
    let limits = Limits {
        total: Some(SHORT),
        ..Limits::default()
    };
    let proxy = proxy(&route, limits).await;
    let request = "GET /x HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
    let silent = tokio::spawn(raw(proxy.address, request));
    let mut connection = target.accept().await;
    connection.request().await.unwrap();
    let answer = silent.await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 504") && answer.contains("longer than 100ms in all"),
        "{answer}"
    );
    connection.closed().await;

    let streaming = tokio::spawn(raw(proxy.address, request));
    let mut connection = target.accept().await;
    connection.request().await.unwrap();
    connection
        .send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    connection.send("9\r\ndata: 1\n\n\r\n").await;
    let answer = streaming.await.unwrap();
    assert!(answer.contains("data: 1\n\n"), "{answer}");
    assert_eq!(answer.matches(r#"data: {"error""#).count(), 1, "{answer}");
    assert!(answer.ends_with("0\r\n\r\n"), "{answer}");
    connection.closed().await;
}

#[tokio::test]
async fn a_body_that_drips_is_408() {
    let target = Target::start().await;
    let limits = Limits {
        request_body: SHORT,
        ..Limits::default()
    };
    let proxy = proxy(&TestRoute::to(&[target.address]), limits).await;
    let mut stream = client(proxy.address).await;
    stream
        .write_all(b"POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: 1000000\r\n\r\n")
        .await
        .unwrap();
    let (mut reader, mut writer) = stream.split();
    let answered = async {
        let mut status = [0; 12];
        reader.read_exact(&mut status).await.unwrap();
        status
    };
    let dripping = async {
        loop {
            // No byte of it waits for long.
            tokio::time::sleep(Duration::from_millis(1)).await;
            if writer.write_all(b"x").await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        status = tokio::time::timeout(DEADLINE, answered) => assert_eq!(&status.expect("in time"), b"HTTP/1.1 408"),
        () = dripping => {}
    }
}
