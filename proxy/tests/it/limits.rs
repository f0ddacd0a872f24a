//! Every bound says so to the client.

use std::time::Duration;

use llmd_proxy::{Limits, Outcome};
use tokio::io::AsyncWriteExt;

use crate::support::{Target, TestRoute, client, proxy, raw, read_body, read_head};

#[tokio::test]
async fn a_body_over_the_limit_is_413_and_never_reaches_the_target() {
    let target = Target::start().await;
    let route = TestRoute::to(&[target.address]);
    let limits = Limits {
        request_body_bytes: 10,
        ..Limits::default()
    };
    let proxy = proxy(&route, limits).await;
    let answer = raw(
        proxy.address,
        "POST /x HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: 11\r\n\r\nhello world",
    )
    .await;
    assert!(
        answer.starts_with("HTTP/1.1 413") && answer.contains("limit of 10 bytes"),
        "{answer}"
    );
    assert_eq!(route.outcome().await, Outcome::Rejected);
}

#[tokio::test]
async fn a_streamed_body_over_the_limit_is_413() {
    let target = Target::start().await;
    let route = TestRoute::to(&[target.address]).streaming();
    let limits = Limits {
        request_body_bytes: 10,
        ..Limits::default()
    };
    let proxy = proxy(&route, limits).await;
    let answer = tokio::spawn(raw(
        proxy.address,
        "POST /x HTTP/1.1\r\nhost: h\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n14\r\n01234567890123456789\r\n0\r\n\r\n",
    ));
    let mut connection = target.accept().await;
    connection.closed().await;
    let answer = answer.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test]
async fn a_silent_request_body_is_408_and_a_silent_target_504() {
    let target = Target::start().await;
    let route = TestRoute::to(&[target.address]);
    let limits = Limits {
        request_idle: Duration::from_millis(50),
        response_head: Duration::from_millis(50),
        ..Limits::default()
    };
    let proxy = proxy(&route, limits).await;
    let answer = raw(
        proxy.address,
        "POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\nhe",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    let answer = raw(
        proxy.address,
        "GET /x HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n",
    )
    .await;
    assert!(
        answer.starts_with("HTTP/1.1 504") && answer.contains("did not begin to answer"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_pause_in_an_event_stream_ends_with_an_error_event() {
    let target = Target::start().await;
    let route = TestRoute::to(&[target.address]);
    let proxy = proxy(
        &route,
        Limits {
            response_idle: Duration::from_millis(50),
            ..Limits::default()
        },
    )
    .await;
    let answer = tokio::spawn(raw(
        proxy.address,
        "GET /x HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n",
    ));
    let mut connection = target.accept().await;
    connection.request().await.unwrap();
    connection
        .send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n")
        .await;
    let answer = answer.await.unwrap();
    assert!(
        answer.contains(r#"data: {"error""#) && answer.ends_with("0\r\n\r\n"),
        "{answer}"
    );
    connection.closed().await;
}

#[tokio::test]
async fn requests_over_the_bound_are_503_with_retry_after() {
    let target = Target::start().await;
    let route = TestRoute::to(&[target.address]);
    let proxy = proxy(
        &route,
        Limits {
            concurrent_requests: 1,
            ..Limits::default()
        },
    )
    .await;
    let mut first = client(proxy.address).await;
    first
        .write_all(b"GET /x HTTP/1.1\r\nhost: h\r\n\r\n")
        .await
        .unwrap();
    let mut connection = target.accept().await;
    connection.request().await.unwrap();
    let answer = raw(
        proxy.address,
        "GET /x HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n",
    )
    .await;
    assert!(
        answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: 1"),
        "{answer}"
    );
    connection
        .send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        .await;
    assert!(read_head(&mut first).await.unwrap().starts_with("http/1.1 200"));
}

#[tokio::test]
async fn a_drain_deadline_is_reported() {
    let target = Target::start().await;
    let route = TestRoute::to(&[target.address]);
    let mut proxy = proxy(
        &route,
        Limits {
            drain: Duration::from_millis(50),
            ..Limits::default()
        },
    )
    .await;
    let mut stream = client(proxy.address).await;
    stream
        .write_all(b"GET /x HTTP/1.1\r\nhost: h\r\n\r\n")
        .await
        .unwrap();
    let mut connection = target.accept().await;
    connection.request().await.unwrap();
    proxy.shutdown.cancel();
    let error = (&mut proxy.task).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("1 requests were cut off"), "{error}");
}

#[tokio::test]
async fn while_closing_each_answer_ends_its_connection() {
    let target = Target::start()
        .await
        .always(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let proxy = proxy(&TestRoute::to(&[target]), Limits::default()).await;
    let request = "GET /x HTTP/1.1\r\nhost: h\r\n\r\n";
    let mut kept = client(proxy.address).await;
    kept.write_all(request.as_bytes()).await.unwrap();
    let head = read_head(&mut kept).await.unwrap();
    assert!(!head.contains("connection:"), "{head}");
    assert_eq!(read_body(&mut kept, &head).await, b"ok");

    proxy.closing.cancel();
    kept.write_all(request.as_bytes()).await.unwrap();
    let head = read_head(&mut kept).await.unwrap();
    assert!(
        head.starts_with("http/1.1 200") && head.contains("connection: close"),
        "{head}"
    );
    assert_eq!(read_body(&mut kept, &head).await, b"ok");
    assert!(read_head(&mut kept).await.is_none(), "the connection goes on");
    // Whoever comes is served.
    let answer = raw(proxy.address, request).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn connections_over_the_bound_wait_for_one_that_ends() {
    let target = Target::start()
        .await
        .always(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let limits = Limits {
        connections: 1,
        ..Limits::default()
    };
    let proxy = proxy(&TestRoute::to(&[target]), limits).await;
    let request = "GET /x HTTP/1.1\r\nhost: h\r\n\r\n";
    let mut first = client(proxy.address).await;
    first.write_all(request.as_bytes()).await.unwrap();
    let head = read_head(&mut first).await.unwrap();
    read_body(&mut first, &head).await;
    let mut second = client(proxy.address).await;
    second.write_all(request.as_bytes()).await.unwrap();
    // The first one still has the only place: its answers come, the other's does not.
    for _ in 0..3 {
        first.write_all(request.as_bytes()).await.unwrap();
        let head = read_head(&mut first).await.unwrap();
        read_body(&mut first, &head).await;
    }
    let mut byte = [0; 1];
    let error = second.try_read(&mut byte).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    drop(first);
    assert!(read_head(&mut second).await.unwrap().starts_with("http/1.1 200"));
}

#[tokio::test]
async fn bodies_over_the_memory_for_them_are_429_until_one_is_answered() {
    let target = Target::start().await;
    let limits = Limits {
        held_body_bytes: 8,
        ..Limits::default()
    };
    let proxy = proxy(&TestRoute::to(&[target.address]), limits).await;
    let request = "POST /x HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello";
    let first = tokio::spawn(raw(proxy.address, request));
    let mut connection = target.accept().await;
    connection.request().await.unwrap();
    let refused = raw(proxy.address, request).await;
    assert!(
        refused.starts_with("HTTP/1.1 429") && refused.contains("retry-after: 1"),
        "{refused}"
    );
    let ok = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    connection.send(ok).await;
    assert!(first.await.unwrap().ends_with("ok"));
    let again = tokio::spawn(raw(proxy.address, request));
    connection.request().await.unwrap();
    connection.send(ok).await;
    assert!(again.await.unwrap().ends_with("ok"));
}
