//! Messages that two servers could read differently, and headers that must not cross.

use llmd_proxy::Limits;

use crate::support::{Target, TestRoute, proxy, proxy_with, raw};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[tokio::test]
async fn ambiguous_requests_are_refused_and_reach_no_target() {
    // Nobody accepts on it: a forwarded request would hang and not be refused.
    let target = Target::start().await;
    let route = TestRoute::to(&[target.address]);
    let proxy = proxy(&route, Limits::default()).await;
    for (request, what) in [
        (
            "POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
            "lengths that differ",
        ),
        (
            "POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: 5, 5\r\n\r\nhello",
            "a list of lengths",
        ),
        (
            "POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: +5\r\n\r\nhello",
            "a signed length",
        ),
        (
            "POST /x HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
            "chunked not last",
        ),
        (
            "POST /x HTTP/1.1\r\nhost: h\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
            "an unknown coding",
        ),
        (
            "POST /x HTTP/1.0\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "chunked in HTTP/1.0",
        ),
        (
            "GET /x HTTP/1.1\r\nhost: h\r\nx-a: 1\r\n folded\r\n\r\n",
            "a folded line",
        ),
        (
            "GET /x HTTP/1.1\r\nhost: h\r\nx-a : 1\r\n\r\n",
            "space before a colon",
        ),
        (
            "GET /x HTTP/1.1\r\nhost: h\r\nx-a: 1\x00\r\n\r\n",
            "a control character",
        ),
        ("GET /x HTTP/1.1\r\nhost: h\r\nhost: g\r\n\r\n", "two hosts"),
        ("GET /x HTTP/1.1\r\nconnection: close\r\n\r\n", "no host"),
    ] {
        let request = request.replacen("host: h\r\n", "host: h\r\nconnection: close\r\n", 1);
        let answer = raw(proxy.address, request).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{what}: {answer}");
    }
    for method in ["CONNECT h:1", "TRACE /x"] {
        let request = format!("{method} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
        let answer = raw(proxy.address, request).await;
        assert!(answer.starts_with("HTTP/1.1 405"), "{method}: {answer}");
    }
}

#[tokio::test]
async fn a_length_beside_chunked_smuggles_nothing() {
    for fields in [
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
    ] {
        let target = Target::start().await;
        let proxy = proxy(&TestRoute::to(&[target.address]), Limits::default()).await;
        let request = format!(
            "POST /x HTTP/1.1\r\nhost: h\r\n{fields}\r\n3\r\nabc\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: h\r\n\r\n"
        );
        let answer = tokio::spawn(raw(proxy.address, request));
        let mut connection = target.accept().await;
        let (head, body) = connection.request().await.unwrap();
        assert_eq!(body, b"abc");
        assert!(
            head.contains("content-length: 3\r\n") && !head.contains("transfer-encoding"),
            "framed anew: {head}"
        );
        connection.send(OK).await;
        // The connection ends with this answer: what came behind it is nobody's request.
        let answer = answer.await.unwrap();
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    }
}

#[tokio::test]
async fn a_length_over_the_cap_is_refused_before_the_body() {
    let target = Target::start().await;
    let limits = Limits {
        request_body_bytes: 10,
        ..Limits::default()
    };
    let proxy = proxy(&TestRoute::to(&[target.address]), limits).await;
    let request = "POST /x HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 11\r\nconnection: close\r\n\r\n";
    let answer = raw(proxy.address, request).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "no 100 before it: {answer}");
}

#[tokio::test]
async fn heads_over_the_bound_are_431() {
    let target = Target::start().await;
    let proxy = proxy(&TestRoute::to(&[target.address]), Limits::default()).await;
    let long = "x".repeat(1024 * 1024);
    let answer = raw(
        proxy.address,
        format!("GET /x HTTP/1.1\r\nhost: h\r\nx-long: {long}\r\n\r\n"),
    )
    .await;
    // The rest of the head may still be on its way when the connection ends, and take the answer with it.
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431"),
        "{answer}"
    );
}

#[tokio::test]
async fn what_clients_say_about_hops_is_believed_only_on_request() {
    let request = "GET /x HTTP/1.1\r\nhost: h\r\nconnection: close\r\nx-forwarded-for: 203.0.113.9\r\n\r\n";
    for (trusts, seen) in [
        (false, "x-forwarded-for: 127.0.0.1\r\n"),
        (true, "x-forwarded-for: 203.0.113.9, 127.0.0.1\r\n"),
    ] {
        let target = Target::start().await;
        let route = TestRoute::to(&[target.address]);
        let proxy = proxy_with(&route, Limits::default(), |server| {
            server.trusting_forwarded_headers(trusts)
        })
        .await;
        let answer = tokio::spawn(raw(proxy.address, request));
        let mut connection = target.accept().await;
        let (head, _) = connection.request().await.unwrap();
        assert!(head.contains(seen), "{head}");
        connection.send(OK).await;
        assert!(answer.await.unwrap().ends_with("ok"));
    }
}
