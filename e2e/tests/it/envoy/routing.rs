//! Where requests go, and what clients cannot say about it.

use llmd_e2e::echo::{Echo, Reply};
use llmd_e2e::http;

use super::{CHAT, Stack, chat, short_answer};

#[tokio::test(flavor = "multi_thread")]
async fn routing_headers_of_clients_are_stripped() {
    let stack = Stack::start(vec![short_answer()]).await;
    let other = Echo::start(short_answer()).await;
    let evil = other.address.to_string();
    let mut headers = vec![
        ("x-gateway-destination-endpoint", evil.as_str()),
        ("x-gateway-destination-endpoint-subset", evil.as_str()),
        ("x-prefiller-host-port", evil.as_str()),
        ("x-encoder-hosts-ports", evil.as_str()),
        ("x-data-parallel-host-port", evil.as_str()),
        ("x-kv-cache-source-host-port", evil.as_str()),
    ];
    let stripped = headers.len();
    headers.push(("x-llm-d-inference-fairness-id", "team-a"));
    for body in [chat("hi"), String::new()] {
        let answer = if body.is_empty() {
            http::get_with(stack.envoy.address, "/v1/models", &headers).await
        } else {
            http::post(stack.envoy.address, CHAT, body, &headers).await
        };
        let answer = answer.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        let recorded = stack.upstreams[0].take().expect("the request came to the pool");
        for (name, _) in &headers[..stripped] {
            let values: Vec<_> = recorded.headers.get_all(*name).iter().collect();
            assert!(
                !values.iter().any(|value| *value == evil.as_str()),
                "{name}: {values:?}"
            );
        }
        assert_eq!(
            recorded.headers["x-gateway-destination-endpoint"],
            stack.upstreams[0].address.to_string().as_str()
        );
        assert_eq!(recorded.headers["x-llm-d-inference-fairness-id"], "team-a");
    }
    assert_eq!(other.count(), 0, "a client chose its own endpoint");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_common_prefix_stays_and_other_prompts_spread() {
    let stack = Stack::start(vec![short_answer(), short_answer(), short_answer()]).await;
    let long = |topic: usize| format!("{topic} ").repeat(4000);
    let counts = || -> Vec<usize> { stack.upstreams.iter().map(Echo::count).collect() };
    for round in 0..4 {
        let body = chat(&format!("{}{round}", long(7)));
        let answer = http::post(stack.envoy.address, CHAT, body, &[]).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let mut sorted = counts();
    sorted.sort_unstable();
    assert_eq!(sorted, [0, 0, 4], "one conversation, one endpoint");
    for topic in 100..130 {
        let answer = http::post(stack.envoy.address, CHAT, chat(&long(topic)), &[])
            .await
            .unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert!(counts().iter().all(|count| *count > 0), "{:?}", counts());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewritten_model_gets_its_own_name_back() {
    let event = |text: &str| {
        format!(
            "data: {{\"id\":\"1\",\"model\":\"target\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n"
        )
    };
    let events: Vec<String> = ["one ", "two ", "three"].map(event).into();
    let mut sent = events.clone();
    sent.push("data: [DONE]\n\n".to_owned());
    let stack = Stack::start(vec![Reply::Events(sent.clone())]).await;
    let answer = http::post(
        stack.envoy.address,
        CHAT,
        r#"{"model":"asked","stream":true,"messages":[{"role":"user","content":"hi"}]}"#,
        &[("x-llm-d-model-name-rewrite", "target")],
    )
    .await
    .unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "text/event-stream");
    assert_eq!(answer.text(), sent.concat().replace("\"target\"", "\"asked\""));
    let recorded = stack.upstreams[0].take().expect("one request");
    assert_eq!(
        recorded.body,
        r#"{"model":"target","stream":true,"messages":[{"role":"user","content":"hi"}]}"#
    );
}
