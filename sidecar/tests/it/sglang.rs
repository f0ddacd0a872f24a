//! Both engines at once, told to meet.

use std::sync::Arc;

use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::engine::{Engine, request, send};
use crate::{PATIENCE, Sidecar};

const BODY: &str = r#"{"messages":[],"max_tokens":50}"#;

const ANSWER: &str = "{\"usage\":{\"prompt_tokens_details\":{\"cached_tokens\":4}}}";

/// A decode engine's answer: it comes when the other leg has begun.
fn answer_after(asked: &Arc<Notify>) -> http::Response<axum::body::Body> {
    let asked = Arc::clone(asked);
    let answer = futures_util::stream::once(async move {
        asked.notified().await;
        Ok::<_, std::io::Error>(bytes::Bytes::from_static(ANSWER.as_bytes()))
    });
    http::Response::new(axum::body::Body::from_stream(answer))
}

#[tokio::test]
async fn both_engines_get_the_same_request_and_meet_in_a_room_of_its_own() {
    let asked = Arc::new(Notify::new());
    let is_asked = Arc::clone(&asked);
    let prefill = Engine::start(move |_| {
        is_asked.notify_one();
        crate::engine::json(200, "{}")
    })
    .await;
    let decode = Engine::start(move |_| answer_after(&asked)).await;
    let sidecar = Sidecar::start("--kv-connector=sglang", &[decode.address]).await;
    let headers = [("x-prefiller-host-port", prefill.address.to_string())];
    for _ in 0..2 {
        let asked = request("/v1/chat/completions", &headers, BODY);
        let (status, _, answer) = send(sidecar.addresses[0], asked).await;
        assert_eq!((status.as_u16(), answer.as_str()), (200, ANSWER));
    }
    let bodies = |engine: &Engine| {
        let mut bodies: Vec<_> = engine.got().into_iter().map(|got| got.body).collect();
        bodies.sort();
        bodies
    };
    let told = bodies(&decode);
    assert_eq!(told, bodies(&prefill));
    assert!(told[0].starts_with(&format!(
        "{},\"bootstrap_host\":\"127.0.0.1\",\"bootstrap_port\":8998,",
        &BODY[..BODY.len() - 1]
    )));
    assert_ne!(told[0], told[1], "each request has its room");
}

#[tokio::test]
async fn the_end_of_the_request_ends_a_prefill_leg_that_still_runs() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("binds");
    let prefill = listener.local_addr().expect("bound");
    let asked = Arc::new(Notify::new());
    let is_asked = Arc::clone(&asked);
    let left = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("asked");
        is_asked.notify_one();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).await.expect("closed in order");
    });
    let decode = Engine::start(move |_| answer_after(&asked)).await;
    let sidecar = Sidecar::start("--kv-connector=sglang", &[decode.address]).await;
    let headers = [("x-prefiller-host-port", prefill.to_string())];
    let request = request("/v1/chat/completions", &headers, BODY);
    assert_eq!(send(sidecar.addresses[0], request).await.0, 200);
    tokio::time::timeout(PATIENCE, left)
        .await
        .expect("in time")
        .expect("left alone");
}
