//! A client that leaves, at whatever point, leaves no load behind.

use llmd_e2e::echo::Reply;
use llmd_e2e::{http, poll_until_async};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{CHAT, Stack, chat, short_answer};

/// Opens a connection and writes the beginning of a request.
async fn begin(stack: &Stack, declared: usize, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(stack.envoy.address).await.unwrap();
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: llmd.test\r\ncontent-type: application/json\r\ncontent-length: {declared}\r\n\r\n{body}"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

async fn streams_at_envoy(stack: &Stack) -> u64 {
    stack.envoy.stat("http.http.downstream_rq_active").await
}

async fn wait_for_streams(stack: &Stack, count: u64) {
    poll_until_async("open requests at Envoy", llmd_e2e::poll::DEADLINE, || async {
        (streams_at_envoy(stack).await == count).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_within_the_body_releases_everything() {
    let stack = Stack::start(vec![short_answer()]).await;
    let body = chat("hello");
    for cut in [0, 1, body.len() / 2, body.len() - 1] {
        let stream = begin(&stack, body.len(), &body[..cut]).await;
        wait_for_streams(&stack, 1).await;
        drop(stream);
        wait_for_streams(&stack, 0).await;
    }
    stack.epp.wait_for_in_flight(0).await;
    assert_eq!(stack.upstreams[0].count(), 0, "half a request was forwarded");
    let answer = http::post(stack.envoy.address, CHAT, body, &[]).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_before_the_answer_releases_everything() {
    let stack = Stack::start(vec![Reply::Silence]).await;
    let body = chat("hello");
    let mut streams = Vec::new();
    for count in 1..=3 {
        streams.push(begin(&stack, body.len(), &body).await);
        stack.epp.wait_for_in_flight(count).await;
    }
    drop(streams);
    stack.epp.wait_for_in_flight(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_within_the_answer_releases_everything() {
    let event = "data: {\"model\":\"m\",\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n".to_owned();
    let stack = Stack::start(vec![Reply::EventsWithoutEnd(vec![event])]).await;
    let body = chat("hello");
    let mut stream = begin(&stack, body.len(), &body).await;
    let mut answer = Vec::new();
    // The event comes while the answer is still open: nothing on the way waits for its end.
    while !String::from_utf8_lossy(&answer).contains("\"content\":\"a\"") {
        assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "the answer ended");
    }
    stack.epp.wait_for_in_flight(1).await;
    drop(stream);
    stack.epp.wait_for_in_flight(0).await;
}
