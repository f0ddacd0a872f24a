//! Clients: as fast as answers come, at a fixed pace, or reading streams.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::engines;

/// Path of a chat request.
pub const CHAT: &str = "/v1/chat/completions";

type Sender = SendRequest<Full<Bytes>>;

/// Chat requests of so many bytes, all different from their first words on.
pub fn prompts(count: usize, size: usize) -> Vec<Bytes> {
    let mut random = fastrand::Rng::with_seed(1);
    let mut prompt = || {
        let mut body = String::from(r#"{"model":"m","max_tokens":16,"messages":[{"role":"user","content":""#);
        while body.len() < size - 3 {
            let length = random.usize(2..9);
            body.extend((0..length).map(|_| random.lowercase()));
            body.push(' ');
        }
        body.push_str("\"}]}");
        Bytes::from(body)
    };
    (0..count).map(|_| prompt()).collect()
}

async fn connect(address: SocketAddr) -> Sender {
    let stream = TcpStream::connect(address).await.expect("a connection");
    stream.set_nodelay(true).expect("a socket");
    let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
    tokio::spawn(connection);
    sender
}

async fn ask(sender: &mut Sender, path: &str, body: Bytes) -> usize {
    sender.ready().await.expect("an open connection");
    let request = Request::post(path)
        .header("host", "llmd.test")
        .header("content-type", "application/json")
        .body(Full::new(body))
        .expect("a request");
    let response = sender.send_request(request).await.expect("an answer");
    assert_eq!(response.status(), 200, "{response:?}");
    response
        .into_body()
        .collect()
        .await
        .expect("a whole answer")
        .to_bytes()
        .len()
}

/// So many requests over so many connections, each as soon as the one before is answered.
pub async fn closed(address: SocketAddr, bodies: &[Bytes], connections: usize, requests: usize) {
    closed_at(address, CHAT, bodies, connections, requests).await;
}

/// [`closed`] at a path.
pub async fn closed_at(
    address: SocketAddr,
    path: &'static str,
    bodies: &[Bytes],
    connections: usize,
    requests: usize,
) {
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        let (next, bodies) = (Arc::clone(&next), bodies.to_vec());
        tasks.spawn(async move {
            let mut sender = connect(address).await;
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= requests {
                    return;
                }
                ask(&mut sender, path, bodies[index % bodies.len()].clone()).await;
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.expect("a client ends well");
    }
}

/// As [`closed`], but for so long; how many were answered, and how long it took until the last one was.
pub async fn closed_for(
    address: SocketAddr,
    bodies: &[Bytes],
    connections: usize,
    length: Duration,
) -> (usize, Duration) {
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for first in 0..connections {
        let bodies = bodies.to_vec();
        tasks.spawn(async move {
            let mut sender = connect(address).await;
            let mut done = 0;
            for body in bodies.iter().cycle().skip(first * bodies.len() / connections) {
                if began.elapsed() >= length {
                    break;
                }
                ask(&mut sender, CHAT, body.clone()).await;
                done += 1;
            }
            done
        });
    }
    let done = tasks.join_all().await.into_iter().sum();
    (done, began.elapsed())
}

/// Latencies, sorted, of requests that start at a fixed pace whatever the answers do.
pub async fn paced(
    address: SocketAddr,
    bodies: &[Bytes],
    per_second: u32,
    length: Duration,
) -> Vec<Duration> {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / per_second);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (give, mut idle) = tokio::sync::mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    let end = Instant::now() + length;
    for body in bodies.iter().cycle() {
        // From when it was due: a late start is latency too.
        let due = ticks.tick().await;
        if due >= end {
            break;
        }
        let sender = idle.try_recv().ok();
        let (give, body) = (give.clone(), body.clone());
        tasks.spawn(async move {
            let mut sender = match sender {
                Some(sender) => sender,
                None => connect(address).await,
            };
            ask(&mut sender, CHAT, body).await;
            // Nobody waits for the last ones.
            let _ = give.send(sender);
            due.elapsed()
        });
    }
    let mut latencies = tasks.join_all().await;
    latencies.sort_unstable();
    latencies
}

/// So many streamed answers at once, read to their ends.
pub async fn streams(address: SocketAddr, count: usize) {
    let mut tasks = JoinSet::new();
    for index in 0..count {
        tasks.spawn(async move {
            let body = format!(r#"{{"model":"m","stream":true,"prompt":"Story number {index}"}}"#);
            let read = ask(&mut connect(address).await, engines::STREAM, Bytes::from(body)).await;
            assert!(read > engines::CHUNKS, "a cut stream");
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.expect("a client ends well");
    }
}
