//! Injected failures, start-up and shutdown.

use std::time::Duration;

use http::Method;
use http_body_util::BodyExt;
use llmd_sim::failure::FailureKind;
use serde_json::json;

use super::client::{get, post, send, start, text, wait_for_metric};

#[tokio::test]
async fn error_kinds_answer_with_their_status() {
    for (kind, status) in [
        (FailureKind::RateLimit, 429),
        (FailureKind::InvalidApiKey, 401),
        (FailureKind::ContextLength, 400),
        (FailureKind::ServerError, 500),
        (FailureKind::ModelNotFound, 404),
        (FailureKind::Unavailable, 503),
    ] {
        let simulator = start(|args| {
            args.failure_injection_rate = 100;
            args.failure_types = vec![kind];
        })
        .await;
        let (got, answer) = post(
            &simulator,
            "/v1/completions",
            &json!({"model": "m", "prompt": "a"}),
        )
        .await;
        assert_eq!(
            (got, &answer["error"]["code"]),
            (status, &json!(status)),
            "{kind:?}"
        );
    }
}

#[tokio::test]
async fn a_reset_cuts_a_stream_after_its_first_tokens() {
    let simulator = start(|args| {
        args.failure_injection_rate = 100;
        args.failure_types = vec![FailureKind::Reset];
    })
    .await;
    let request =
        json!({"model": "m", "prompt": "a", "max_tokens": 9, "stream": true, "ignore_eos": true}).to_string();
    let mut body = send(simulator.address(), Method::POST, "/v1/completions", &request)
        .await
        .unwrap()
        .into_body();
    let mut received = String::new();
    let error = loop {
        match body.frame().await.expect("the stream must not end cleanly") {
            Ok(frame) => received.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap()),
            Err(error) => break error,
        }
    };
    assert_eq!(received.matches("data: ").count(), 3, "{error}: {received}");
    let plain = json!({"model": "m", "prompt": "a"}).to_string();
    assert!(
        send(simulator.address(), Method::POST, "/v1/completions", &plain)
            .await
            .is_err()
    );
    wait_for_metric(&simulator, "vllm:num_requests_running", 0.0).await;
}

#[tokio::test]
async fn a_slow_answer_is_whole() {
    let simulator = start(|args| {
        args.failure_injection_rate = 100;
        args.failure_types = vec![FailureKind::Slow];
        args.inter_token_latency = None;
        args.time_to_first_token = None;
        args.step_base = Some(Duration::from_millis(1));
    })
    .await;
    let (status, answer) = post(
        &simulator,
        "/v1/completions",
        &json!({"model": "m", "prompt": "a", "max_tokens": 4}),
    )
    .await;
    assert_eq!((status, &answer["usage"]["completion_tokens"]), (200, &json!(4)));
}

#[tokio::test]
async fn a_model_that_loads_answers_503_and_then_serves() {
    let simulator = start(|args| args.startup_duration = Duration::from_millis(300)).await;
    let start = std::time::Instant::now();
    let (mut status, body) = get(&simulator, "/health").await;
    assert_eq!(status, 503, "{body}");
    while status != 200 {
        assert!(start.elapsed() < super::client::DEADLINE);
        (status, _) = get(&simulator, "/health").await;
    }
}

#[tokio::test]
async fn a_stop_lets_open_streams_end_and_refuses_new_connections() {
    let mut simulator = start(|args| args.inter_token_latency = Some(Duration::from_millis(5))).await;
    let request = json!({"model": "m", "prompt": "a", "max_tokens": 30, "stream": true, "ignore_eos": true})
        .to_string();
    let address = simulator.address();
    let response = send(address, Method::POST, "/v1/completions", &request)
        .await
        .unwrap();
    let body = tokio::spawn(text(response));
    simulator.stop().await;
    assert!(body.await.unwrap().ends_with("data: [DONE]\n\n"));
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}
