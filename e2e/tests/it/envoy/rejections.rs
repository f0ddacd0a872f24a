//! What cannot be routed is answered with upstream's status and text, and harms nobody else.

use llmd_e2e::http;

use super::{CHAT, Stack, chat, short_answer};

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_answered_and_named() {
    let stack = Stack::start(vec![short_answer()]).await;
    for (body, text) in [
        (r#"{"model":"m","messages":["#, "inference error: BadRequest - "),
        (r#"{"model":"m" "messages":[]}"#, "inference error: BadRequest - "),
        ("\u{0}", "inference error: BadRequest - "),
        (
            r#"{"messages":[{"role":"user","content":"hi"}]}"#,
            "inference error: BadRequest - model not found in request body",
        ),
    ] {
        let answer = http::post(stack.envoy.address, CHAT, body, &[]).await.unwrap();
        assert_eq!(answer.status, 400, "{body}: {}", answer.text());
        assert!(answer.text().starts_with(text), "{body}: {}", answer.text());
    }
    assert_eq!(stack.upstreams[0].count(), 0, "a bad request was forwarded");
    let answer = http::post(stack.envoy.address, CHAT, chat("hi"), &[])
        .await
        .unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    stack.epp.wait_for_in_flight(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_endpoints_a_request_is_dropped_with_its_reason() {
    let mut stack = Stack::start(vec![short_answer()]).await;
    stack.epp.set_endpoints(&[]).await;
    let answer = http::post(stack.envoy.address, CHAT, chat("hi"), &[])
        .await
        .unwrap();
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(
        answer.header("x-llm-d-request-dropped-reason"),
        "rejected-no-endpoints"
    );
    assert_eq!(
        answer.text(),
        "inference error: ServiceUnavailable - failed to find endpoint candidates for serving the request"
    );
    let answer = http::get(stack.envoy.address, "/v1/models").await.unwrap();
    assert_eq!(answer.status, 503, "{}", answer.text());
    let address = stack.upstreams[0].address;
    stack.epp.set_endpoints(&[address]).await;
    let answer = http::post(stack.envoy.address, CHAT, chat("hi"), &[])
        .await
        .unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
}
