//! Streams whose engine dies after it began to answer.

use serde_json::{Value, json};

use super::rig::{Rig, rig, scraping, start, text};
use crate::engine::{Engine, Script};

const ASKED: &str = r#"{"model":"m","messages":[{"role":"user","content":"Count"}],"max_tokens":9,"stream":true,"stream_options":{"include_usage":true}}"#;

fn events(body: &str) -> Vec<Value> {
    let payloads = body
        .split("\n\n")
        .filter_map(|event| event.strip_prefix("data: "));
    payloads
        .filter(|data| *data != "[DONE]")
        .map(|data| serde_json::from_str(data).expect("JSON"))
        .collect()
}

fn continuations(rig: &Rig, result: &str) -> f64 {
    let families = rig.registry.gather();
    let family = families
        .iter()
        .find(|family| family.name() == "llmd_proxy_stream_continuations_total")
        .expect("the metric");
    let of_result = |metric: &&prometheus::proto::Metric| metric.get_label()[0].value() == result;
    let metric = family.get_metric().iter().find(of_result).expect("the result");
    metric.get_counter().get_value()
}

/// Engines of which the first one is picked first: it is the least loaded until it fails.
async fn answered(first: &Engine, second: &Engine) -> (Rig, String) {
    let rig = rig(&[first, second]).await;
    let answer = rig.chat(ASKED).await;
    assert_eq!(answer.status(), 200);
    let body = text(answer).await;
    rig.all_load_is_given_back().await;
    (rig, body)
}

#[tokio::test]
async fn another_engine_writes_the_rest_and_the_client_sees_one_answer() {
    let (first, second) = (
        Engine::start(Script::DieInChat).await,
        Engine::start(Script::EndChat { dies: false }).await,
    );
    let (rig, body) = answered(&first, &second).await;
    assert!(
        body.ends_with("data: [DONE]\n\n") && body.matches("[DONE]").count() == 1,
        "{body}"
    );
    let events = events(&body);
    let said: String = events
        .iter()
        .filter_map(|event| event["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(said, "One two three");
    assert!(
        events
            .iter()
            .all(|event| event["id"] == "first" && event["created"] == 1),
        "{body}"
    );
    let roles = events
        .iter()
        .filter(|event| event["choices"][0]["delta"]["role"].is_string());
    assert_eq!(roles.count(), 1, "{body}");
    assert_eq!(
        events.last().expect("events")["usage"],
        json!({"prompt_tokens": 7, "total_tokens": 10, "completion_tokens": 3})
    );

    let received = second.received();
    assert_eq!(received.len(), 1);
    let asked: Value = serde_json::from_slice(&received[0].body).expect("JSON");
    assert_eq!(
        asked["messages"][1],
        json!({"role": "assistant", "content": "One two"})
    );
    assert_eq!(
        (
            &asked["continue_final_message"],
            &asked["add_generation_prompt"],
            &asked["max_tokens"]
        ),
        (&json!(true), &json!(false), &json!(7))
    );
    let target = second.address.to_string();
    assert_eq!(
        received[0].header("x-gateway-destination-endpoint"),
        Some(&*target)
    );
    assert!((continuations(&rig, "continued") - 1.0).abs() < f64::EPSILON);
}

#[tokio::test]
async fn a_second_death_is_survived_too() {
    let (first, second) = (
        Engine::start(Script::DieInChat).await,
        Engine::start(Script::EndChat { dies: true }).await,
    );
    let (rig, body) = answered(&first, &second).await;
    assert!(
        !body.contains("error") && body.ends_with("data: [DONE]\n\n"),
        "{body}"
    );
    assert!((continuations(&rig, "completed") - 1.0).abs() < f64::EPSILON);
}

#[tokio::test]
async fn what_cannot_be_continued_ends_with_one_error_event() {
    let first = Engine::start(Script::DieInChat).await;
    for (member, value) in [("n", json!(2)), ("tools", json!([{"type": "function"}]))] {
        let rig = start(&[&first], None, scraping()).await;
        let mut asked: Value = serde_json::from_str(ASKED).expect("JSON");
        asked[member] = value;
        let body = text(rig.chat(&asked.to_string()).await).await;
        let errors = events(&body)
            .iter()
            .filter(|event| event["error"].is_object())
            .count();
        assert_eq!((errors, body.matches("[DONE]").count()), (1, 0), "{body}");
        assert!((continuations(&rig, "impossible") - 1.0).abs() < f64::EPSILON);
    }
    // Nobody is left.
    let rig = start(&[&first], None, scraping()).await;
    let body = text(rig.chat(ASKED).await).await;
    assert!(body.contains("\"error\""), "{body}");
    assert!((continuations(&rig, "no_endpoint") - 1.0).abs() < f64::EPSILON);
}
