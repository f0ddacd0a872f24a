//! Both engines at once, told to meet.

use std::sync::Arc;

use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::engine::{Engine, request, send};
use crate::{PATIENCE, Sidecar, until};

const BODY: &str = r#"{"messages":[],"max_tokens":50}"#;

const ANSWER: &str = "{\"usage\":{\"prompt_tokens_details\":{\"cached_tokens\":4}}}";

/// A decode engine's answer: it comes when the other leg has begun.
fn answer_after(status: u16, asked: &Arc<Notify>) -> http::Response<axum::body::Body> {
    let asked = Arc::clone(asked);
    let answer = futures_util::stream::once(async move {
        asked.notified().await;
        Ok::<_, std::io::Error>(bytes::Bytes::from_static(ANSWER.as_bytes()))
    });
    let mut answer = http::Response::new(axum::body::Body::from_stream(answer));
    *answer.status_mut() = http::StatusCode::from_u16(status).expect("valid");
    answer
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
    let decode = Engine::start(move |_| answer_after(200, &asked)).await;
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
async fn a_decode_leg_that_fails_ends_the_prefill_leg_beside_it() {
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
    let decode = Engine::start(move |_| answer_after(500, &asked)).await;
    let sidecar = Sidecar::start("--kv-connector=sglang", &[decode.address]).await;
    let headers = [("x-prefiller-host-port", prefill.to_string())];
    let request = request("/v1/chat/completions", &headers, BODY);
    assert_eq!(send(sidecar.addresses[0], request).await.0, 500);
    tokio::time::timeout(PATIENCE, left)
        .await
        .expect("in time")
        .expect("left alone");
}

#[tokio::test]
async fn a_prefill_leg_that_fails_is_begun_anew_elsewhere_with_its_decode_leg() {
    let broken = Engine::saying(503, "{}").await;
    let prefill = Engine::saying(200, "{}").await;
    // Waits for blocks that never come from the first engine.
    let decode = Engine::start(|got| {
        let told: serde_json::Value = serde_json::from_str(&got.body).expect("JSON");
        match told.get("bootstrap_host") {
            Some(host) if host == "localhost" => {
                let never = futures_util::stream::pending::<std::io::Result<bytes::Bytes>>();
                http::Response::new(axum::body::Body::from_stream(never))
            }
            _ => crate::engine::json(200, ANSWER),
        }
    })
    .await;
    let sidecar = Sidecar::start("--kv-connector=sglang", &[decode.address]).await;
    let first = format!("localhost:{}", broken.address.port());
    for (list, where_, legs) in [
        (format!("{first},{}", prefill.address), "remote", 1),
        (first.clone(), "local", 1),
    ] {
        let headers = [("x-prefiller-host-port", list)];
        let asked = request("/v1/chat/completions", &headers, BODY);
        let (status, _, answer) = send(sidecar.addresses[0], asked).await;
        assert_eq!((status.as_u16(), answer.as_str()), (200, ANSWER));
        assert_eq!(prefill.got().len(), legs, "{where_}");
        let line = format!("llm_d_disagg_sidecar_prefills_total{{where=\"{where_}\"}} 1");
        until(&line, || sidecar.counts(&line)).await;
    }
    assert_eq!(decode.got().pop().expect("asked").body, BODY, "computed there");

    let strict = Sidecar::start("--kv-connector=sglang --prefill-failure=error", &[decode.address]).await;
    let asked = request("/v1/chat/completions", &[("x-prefiller-host-port", first)], BODY);
    assert_eq!(send(strict.addresses[0], asked).await.0, 503);
}
