//! Targets that fail at each stage, and clients that leave.

use llmd_proxy::{Limits, Outcome};
use tokio::io::AsyncWriteExt;

use crate::support::{Target, TestRoute, client, proxy, raw, read_body, read_head, refusing};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const REQUEST: &str = "POST /x HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello";

#[tokio::test]
async fn a_refusing_target_is_replaced() {
    let route = TestRoute::to(&[refusing().await, Target::start().await.always(OK)]);
    let proxy = proxy(&route, Limits::default()).await;
    assert!(raw(proxy.address, REQUEST).await.ends_with("ok"));
    assert_eq!(route.outcome().await, Outcome::Complete);
}

#[tokio::test]
async fn a_target_that_dies_before_or_right_after_its_head_is_replaced() {
    for partial in [
        "",
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
    ] {
        let dying = Target::start().await;
        let route = TestRoute::to(&[dying.address, Target::start().await.always(OK)]);
        let proxy = proxy(&route, Limits::default()).await;
        let answer = tokio::spawn(raw(proxy.address, REQUEST));
        let mut connection = dying.accept().await;
        let (_, body) = connection.request().await.unwrap();
        assert_eq!(body, b"hello");
        connection.send(partial).await;
        drop(connection);
        assert!(answer.await.unwrap().ends_with("ok"), "after {partial:?}");
    }
}

#[tokio::test]
async fn a_stale_pooled_connection_gets_a_second_chance_on_the_same_target() {
    let target = Target::start().await;
    let route = TestRoute::to(&[target.address]);
    let proxy = proxy(&route, Limits::default()).await;
    let mut stream = client(proxy.address).await;
    let request = b"POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\nhello";
    stream.write_all(request).await.unwrap();
    let mut connection = target.accept().await;
    connection.request().await.unwrap();
    connection.send(OK).await;
    let head = read_head(&mut stream).await.unwrap();
    read_body(&mut stream, &head).await;

    // The target takes the second request on the kept-alive connection and closes without a word.
    stream.write_all(request).await.unwrap();
    connection.request().await.unwrap();
    drop(connection);
    let mut again = target.accept().await;
    assert_eq!(again.request().await.unwrap().1, b"hello");
    again.send(OK).await;
    assert!(read_head(&mut stream).await.unwrap().starts_with("http/1.1 200"));
}

#[tokio::test]
async fn no_target_left_is_502_with_the_cause() {
    let route = TestRoute::to(&[refusing().await, refusing().await]);
    let proxy = proxy(&route, Limits::default()).await;
    let answer = raw(proxy.address, REQUEST).await;
    assert!(
        answer.starts_with("HTTP/1.1 502") && answer.contains("refused"),
        "{answer}"
    );
    assert_eq!(route.outcome().await, Outcome::TargetFailed);
}

#[tokio::test]
async fn a_stream_that_breaks_after_tokens_ends_with_one_error_event() {
    let target = Target::start().await;
    let route = TestRoute::to(&[target.address]);
    let proxy = proxy(&route, Limits::default()).await;
    let answer = tokio::spawn(raw(proxy.address, REQUEST));
    let mut connection = target.accept().await;
    connection.request().await.unwrap();
    connection
        .send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n")
        .await;
    drop(connection);
    let answer = answer.await.unwrap();
    assert!(answer.contains("data: 1\n\n"), "{answer}");
    assert_eq!(answer.matches(r#"data: {"error""#).count(), 1, "{answer}");
    assert!(
        answer.ends_with("0\r\n\r\n"),
        "the chunked body ends cleanly: {answer}"
    );
    assert_eq!(route.outcome().await, Outcome::TargetFailed);
}

#[tokio::test]
async fn half_an_event_of_a_dead_target_never_reaches_the_client() {
    let target = Target::start().await;
    let route = TestRoute::to(&[target.address]);
    let proxy = proxy(&route, Limits::default()).await;
    let answer = tokio::spawn(raw(proxy.address, REQUEST));
    let mut connection = target.accept().await;
    connection.request().await.unwrap();
    connection
        .send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n13\r\ndata: 1\n\ndata: {\"ha\r\n")
        .await;
    drop(connection);
    let answer = answer.await.unwrap();
    let lines: Vec<&str> = answer.lines().filter(|line| line.starts_with("data: ")).collect();
    assert_eq!(lines[0], "data: 1", "{answer}");
    assert!(
        lines[1].starts_with(r#"data: {"error""#) && lines.len() == 2,
        "{answer}"
    );
}

#[tokio::test]
async fn a_json_answer_that_breaks_is_never_a_silent_short_success() {
    let target = Target::start().await;
    let route = TestRoute::to(&[target.address]);
    let proxy = proxy(&route, Limits::default()).await;
    let answer = tokio::spawn(raw(proxy.address, REQUEST));
    let mut connection = target.accept().await;
    connection.request().await.unwrap();
    connection
        .send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"a\":\r\n")
        .await;
    drop(connection);
    let answer = answer.await.unwrap();
    assert!(
        !answer.ends_with("0\r\n\r\n"),
        "the chunked body must stay open-ended: {answer}"
    );
    assert_eq!(route.outcome().await, Outcome::TargetFailed);
}

#[tokio::test]
async fn a_client_that_leaves_cancels_the_target_at_once() {
    for stage in ["before the head", "mid-stream"] {
        let target = Target::start().await;
        let route = TestRoute::to(&[target.address]);
        let proxy = proxy(&route, Limits::default()).await;
        let mut stream = client(proxy.address).await;
        stream.write_all(REQUEST.as_bytes()).await.unwrap();
        let mut connection = target.accept().await;
        connection.request().await.unwrap();
        if stage == "mid-stream" {
            connection
                .send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc")
                .await;
            read_head(&mut stream).await.unwrap();
        }
        drop(stream);
        connection.closed().await;
        assert_eq!(route.outcome().await, Outcome::ClientGone, "{stage}");
    }
}

const EVENTS: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

fn chunk(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.len())
}

#[tokio::test]
async fn a_broken_stream_goes_on_at_another_target_from_the_last_whole_event() {
    let (dying, refused, next) = (Target::start().await, refusing().await, Target::start().await);
    let route = TestRoute::to(&[dying.address, refused, next.address]).resuming();
    let proxy = proxy(&route, Limits::default()).await;
    let answer = tokio::spawn(raw(proxy.address, REQUEST));
    let mut connection = dying.accept().await;
    connection.request().await.unwrap();
    connection.send(EVENTS).await;
    connection.send(chunk("data: one\n\ndata: ha")).await;
    drop(connection);
    let mut connection = next.accept().await;
    let (head, body) = connection.request().await.unwrap();
    assert!(head.contains(&format!("x-after: {refused}")), "{head}");
    assert_eq!(body, b"the rest");
    connection.send(EVENTS).await;
    connection.send(chunk("data: two\n\n")).await;
    connection.send("0\r\n\r\n").await;
    let answer = answer.await.unwrap();
    let events: Vec<&str> = answer.lines().filter(|line| line.starts_with("data:")).collect();
    assert_eq!(events, ["data: one", "data: two"], "{answer}");
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "one head: {answer}");
    assert_eq!(route.outcome().await, Outcome::Complete);
}

#[tokio::test]
async fn a_stream_that_lacks_only_its_end_is_completed_and_a_refused_rest_is_an_error_event() {
    let refusal = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\nno";
    for refuses in [false, true] {
        let dying = Target::start().await;
        let mut targets = vec![dying.address];
        if refuses {
            targets.push(Target::start().await.always(refusal));
        }
        let route = TestRoute::to(&targets).resuming();
        let proxy = proxy(&route, Limits::default()).await;
        let answer = tokio::spawn(raw(proxy.address, REQUEST));
        let mut connection = dying.accept().await;
        connection.request().await.unwrap();
        connection.send(EVENTS).await;
        connection.send(chunk("data: one\n\n")).await;
        drop(connection);
        let answer = answer.await.unwrap();
        let events: Vec<&str> = answer.lines().filter(|line| line.starts_with("data:")).collect();
        assert_eq!((events.len(), events[0]), (2, "data: one"), "{answer}");
        if refuses {
            assert!(events[1].contains("\"error\""), "{answer}");
            assert_eq!(route.outcome().await, Outcome::TargetFailed);
        } else {
            assert_eq!(events[1], "data: end");
            assert_eq!(route.outcome().await, Outcome::Complete);
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_while_the_rest_is_asked_for_ends_the_request_once() {
    let (dying, next) = (Target::start().await, Target::start().await);
    let route = TestRoute::to(&[dying.address, next.address]).resuming();
    let proxy = proxy(&route, Limits::default()).await;
    let mut stream = client(proxy.address).await;
    stream.write_all(REQUEST.as_bytes()).await.unwrap();
    let mut connection = dying.accept().await;
    connection.request().await.unwrap();
    connection.send(EVENTS).await;
    connection.send(chunk("data: one\n\n")).await;
    drop(connection);
    let mut connection = next.accept().await;
    connection.request().await.unwrap();
    drop(stream);
    connection.closed().await;
    assert_eq!(route.outcome().await, Outcome::ClientGone);
    assert_eq!(route.outcomes.lock().unwrap().len(), 1);
}
