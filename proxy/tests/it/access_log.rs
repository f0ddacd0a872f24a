//! What is told about each request.

use std::sync::{Arc, Mutex};

use http::{Method, Version};
use llmd_proxy::{Ended, Limits, Record, Server};
use tokio::io::AsyncWriteExt;

use crate::support::{
    Proxy, Target, TestRoute, client, http2, poll_until, proxy_with, raw, read_head, send, text,
};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

async fn logging(target: &Target) -> (Proxy, Arc<Mutex<Vec<Record>>>) {
    let records = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&records);
    let route = TestRoute::to(&[target.address]);
    let set = |server: Server<TestRoute>| {
        server.logging_to(Arc::new(move |record| log.lock().unwrap().push(record)))
    };
    (proxy_with(&route, Limits::default(), set).await, records)
}

async fn only(records: &Mutex<Vec<Record>>) -> Record {
    poll_until(|| records.lock().unwrap().pop()).await
}

#[tokio::test]
async fn answers_are_told_with_size_target_and_end_but_without_secrets() {
    let target = Target::start().await;
    let (proxy, records) = logging(&target).await;
    let request = "POST /x?key=sk-secret HTTP/1.1\r\nhost: h\r\nauthorization: Bearer sk-secret\r\nx-request-id: r1\r\nconnection: close\r\ncontent-length: 9\r\n\r\nsk-secret";
    let answer = tokio::spawn(raw(proxy.address, request));
    let mut connection = target.accept().await;
    connection.request().await.unwrap();
    connection.send(OK).await;
    assert!(answer.await.unwrap().ends_with("ok"));
    let record = only(&records).await;
    assert!(!format!("{record:?}").contains("secret"), "{record:?}");
    assert_eq!(
        (&record.method, record.path.as_str(), record.version),
        (&Method::POST, "/x", Version::HTTP_11)
    );
    assert_eq!(record.status.unwrap(), 200);
    assert_eq!((record.sent, record.ended), (2, Ended::Complete));
    assert_eq!(
        (record.target, record.request_id.as_deref()),
        (Some(target.address), Some("r1"))
    );
    assert!(record.first.unwrap() <= record.took);

    let sender = http2(client(proxy.address).await).await;
    let answer = tokio::spawn(async move { text(send(&sender, "hello").await).await });
    // The connection of the request before is kept.
    connection.request().await.unwrap();
    connection.send(OK).await;
    assert_eq!(answer.await.unwrap(), "ok");
    let record = only(&records).await;
    assert_eq!(
        (record.version, record.sent, record.ended),
        (Version::HTTP_2, 2, Ended::Complete)
    );
}

#[tokio::test]
async fn refusals_and_bare_answers_are_complete() {
    let target = Target::start().await;
    let (proxy, records) = logging(&target).await;
    raw(
        proxy.address,
        "GET /refused HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n",
    )
    .await;
    let record = only(&records).await;
    assert_eq!(record.status.unwrap(), 404);
    assert_eq!((record.target, record.ended), (None, Ended::Complete));

    let head = "HEAD /x HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
    let answer = tokio::spawn(raw(proxy.address, head));
    let mut connection = target.accept().await;
    connection.request().await.unwrap();
    connection
        .send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n")
        .await;
    answer.await.unwrap();
    assert_eq!(only(&records).await.ended, Ended::Complete);
}

#[tokio::test]
async fn clients_that_leave_and_answers_that_break_are_told_apart() {
    let target = Target::start().await;
    let (proxy, records) = logging(&target).await;
    let request = "GET /x HTTP/1.1\r\nhost: h\r\n\r\n";
    let mut stream = client(proxy.address).await;
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut connection = target.accept().await;
    connection.request().await.unwrap();
    drop(stream);
    let record = only(&records).await;
    assert_eq!((record.status, record.ended), (None, Ended::ClientGone));

    let mut stream = client(proxy.address).await;
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut connection = target.accept().await;
    connection.request().await.unwrap();
    connection
        .send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nok")
        .await;
    read_head(&mut stream).await.unwrap();
    drop(connection);
    let record = only(&records).await;
    assert_eq!((record.sent, record.ended), (2, Ended::Broken));
}
