//! Engines that share a storage: prefill first, or only when the decode engine has too little.

use axum::body::Body;
use bytes::Bytes;
use http::Response;
use serde_json::Value;

use crate::Sidecar;
use crate::engine::{Engine, Got, json, request, send};

const FLAGS: &str = "--kv-connector=shared-storage";

fn told(got: &Got) -> Value {
    serde_json::from_str(&got.body).expect("JSON")
}

/// Refuses a threshold above 0, once in events, once as JSON.
fn refusing(got: &Got) -> Response<Body> {
    let asked = told(got);
    let refuses = asked["cache_hit_threshold"]
        .as_f64()
        .is_some_and(|threshold| threshold > 0.0);
    match (asked["stream"] == true, refuses) {
        (true, true) => events(&[
            r#"{"delta":{"role":"assistant","content":""},"finish_reason":null}"#,
            r#"{"delta":{},"finish_reason":"cache_threshold"}"#,
        ]),
        (true, false) => events(&[r#"{"delta":{"content":"hello"},"finish_reason":null}"#]),
        (false, true) => json(
            200,
            r#"{"choices":[{"finish_reason":"cache_threshold","message":{"content":""}}]}"#,
        ),
        (false, false) => json(
            200,
            r#"{"choices":[{"finish_reason":"stop","message":{"content":"hello"}}]}"#,
        ),
    }
}

/// Each event as a chunk of its own.
fn events(choices: &[&str]) -> Response<Body> {
    let events: Vec<_> = choices
        .iter()
        .map(|choice| format!("data: {{\"choices\":[{choice}]}}\n\n"))
        .chain(["data: [DONE]\n\n".to_owned()])
        .map(|event| Ok::<_, std::io::Error>(Bytes::from(event)))
        .collect();
    Response::builder()
        .header("content-type", "text/event-stream")
        .body(Body::from_stream(futures_util::stream::iter(events)))
        .expect("valid")
}

#[tokio::test]
async fn a_prompt_is_computed_first_and_told_to_nobody() {
    let (prefill, decode) = (Engine::saying(200, "{}").await, Engine::start(refusing).await);
    let sidecar = Sidecar::start(FLAGS, &[decode.address]).await;
    let headers = [("x-prefiller-host-port", prefill.address.to_string())];
    let body = r#"{"messages":[],"max_tokens":9,"stream":true}"#;
    let (status, _, text) = send(
        sidecar.addresses[0],
        request("/v1/chat/completions", &headers, body),
    )
    .await;
    assert_eq!(status, 200);
    assert!(text.contains("hello"), "{text}");
    let (leg, main) = (told(&prefill.got()[0]), told(&decode.got()[0]));
    assert_eq!(
        (&leg["max_tokens"], &leg["stream"], &leg["cache_hit_threshold"]),
        (&1.into(), &false.into(), &0.into())
    );
    assert_eq!(
        (&main["max_tokens"], &main["stream"], &main["cache_hit_threshold"]),
        (&9.into(), &true.into(), &0.into())
    );
    assert!(main.get("kv_transfer_params").is_none());
}

#[tokio::test]
async fn with_a_threshold_the_decode_engine_is_asked_first() {
    for (body, chunked) in [
        (r#"{"messages":[],"cache_hit_threshold":0.8,"stream":true}"#, true),
        (r#"{"messages":[],"cache_hit_threshold":0.8}"#, false),
    ] {
        let (prefill, decode) = (Engine::saying(200, "{}").await, Engine::start(refusing).await);
        let sidecar = Sidecar::start(FLAGS, &[decode.address]).await;
        let headers = [("x-prefiller-host-port", prefill.address.to_string())];
        let (status, _, text) = send(
            sidecar.addresses[0],
            request("/v1/chat/completions", &headers, body),
        )
        .await;
        assert_eq!(status, 200, "{chunked}");
        assert!(
            text.contains("hello") && !text.contains("cache_threshold"),
            "{text}"
        );
        assert_eq!((prefill.got().len(), decode.got().len()), (1, 2));
        assert_eq!(decode.got()[0].body, body, "as it came");

        // An engine that has enough generates at once.
        let enough = body.replace("0.8", "0.0");
        let (status, _, text) = send(
            sidecar.addresses[0],
            request("/v1/chat/completions", &headers, &enough),
        )
        .await;
        assert_eq!(status, 200);
        assert!(text.contains("hello"), "{text}");
        assert_eq!((prefill.got().len(), decode.got().len()), (1, 3));
    }
}

#[tokio::test]
async fn without_a_prefill_engine_that_answers_no_part_is_too_little() {
    let (prefill, decode) = (Engine::saying(503, "{}").await, Engine::start(refusing).await);
    let sidecar = Sidecar::start(FLAGS, &[decode.address]).await;
    let headers = [("x-prefiller-host-port", prefill.address.to_string())];
    let body = r#"{"messages":[],"cache_hit_threshold":0.8}"#;
    let (status, _, text) = send(
        sidecar.addresses[0],
        request("/v1/chat/completions", &headers, body),
    )
    .await;
    assert_eq!(status, 200);
    assert!(text.contains("hello"), "{text}");
}
