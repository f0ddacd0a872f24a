//! Chunked decode: what the engine is asked for, part by part, and what the client gets.

use serde_json::{Value, json};

use crate::Sidecar;
use crate::engine::{Engine, Got, request, send};

const WORDS: [&str; 7] = ["one", " two", " three", " four", " five", " six", " seven"];

fn told(got: &Got) -> Value {
    serde_json::from_str(&got.body).expect("JSON")
}

fn answer(status: u16, body: &Value) -> http::Response<axum::body::Body> {
    let response = http::Response::builder()
        .status(status)
        .header("content-type", "application/json");
    response
        .body(axum::body::Body::from(body.to_string()))
        .expect("valid")
}

/// An engine that knows seven words and goes on where the last assistant message ends.
fn generate(got: &Got) -> http::Response<axum::body::Body> {
    let asked = told(got);
    let messages = asked["messages"].as_array().expect("messages");
    let before = messages.last().filter(|last| last["role"] == "assistant");
    let said = before.map_or("", |last| last["content"].as_str().expect("text"));
    let done = (0..=WORDS.len())
        .find(|count| WORDS[..*count].concat() == said)
        .expect("its own text");
    let cap = asked["max_tokens"]
        .as_u64()
        .map_or(WORDS.len(), |cap| cap as usize);
    let next = &WORDS[done..(done + cap).min(WORDS.len())];
    let finish = if next.len() < cap || done + next.len() == WORDS.len() {
        "stop"
    } else {
        "length"
    };
    answer(
        200,
        &json!({
            "id": format!("chat-{done}"), "object": "chat.completion", "created": 1, "model": "m",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": next.concat()}, "finish_reason": finish}],
            "usage": {"prompt_tokens": 5 + done, "completion_tokens": next.len(), "total_tokens": 5 + done + next.len()},
        }),
    )
}

async fn ask(sidecar: &Sidecar, body: &Value, headers: &[(&str, String)]) -> (u16, String) {
    let asked = request("/v1/chat/completions", headers, &body.to_string());
    let (status, _, text) = send(sidecar.addresses[0], asked).await;
    (status.as_u16(), text)
}

fn chat(members: &Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": "count"}]});
    body.as_object_mut()
        .expect("an object")
        .extend(members.as_object().expect("an object").clone());
    body
}

#[tokio::test]
async fn an_answer_comes_in_parts_and_is_one() {
    let engine = Engine::start(generate).await;
    let sidecar = Sidecar::start("--decode-chunk-size=3", &[engine.address]).await;
    let (status, text) = ask(
        &sidecar,
        &chat(&json!({"max_tokens": 5, "kv_transfer_params": {"a": 1}, "min_tokens": 4})),
        &[],
    )
    .await;
    let whole: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(status, 200);
    assert_eq!(
        whole,
        json!({
            "id": "chat-0", "object": "chat.completion", "created": 1, "model": "m",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": WORDS[..5].concat()}, "finish_reason": "length"}],
            "usage": {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10},
        })
    );
    let [first, second] = &engine.got().iter().map(told).collect::<Vec<_>>()[..] else {
        panic!("two parts")
    };
    assert_eq!(
        (
            &first["max_tokens"],
            &first["max_completion_tokens"],
            &first["stream"]
        ),
        (&json!(3), &json!(3), &json!(false))
    );
    assert_eq!(
        (&first["kv_transfer_params"], &first["min_tokens"]),
        (&json!({"a": 1}), &json!(4))
    );
    assert_eq!(
        (
            &second["max_tokens"],
            &second["min_tokens"],
            &second["kv_transfer_params"]
        ),
        (&json!(2), &json!(1), &Value::Null)
    );
    assert_eq!(
        (
            &second["continue_final_message"],
            &second["add_generation_prompt"]
        ),
        (&json!(true), &json!(false))
    );
    assert_eq!(
        second["messages"][1],
        json!({"role": "assistant", "content": "one two three"})
    );
}

#[tokio::test]
async fn a_stream_gets_each_part_as_an_event_and_usage_if_it_asks() {
    let engine = Engine::start(generate).await;
    let sidecar = Sidecar::start("--decode-chunk-size=3", &[engine.address]).await;
    for tells in [false, true] {
        let body = chat(&json!({"stream": true, "stream_options": {"include_usage": tells}}));
        let (status, text) = ask(&sidecar, &body, &[]).await;
        assert_eq!(status, 200);
        let events: Vec<&str> = text
            .split("\n\n")
            .filter_map(|event| event.strip_prefix("data: "))
            .collect();
        let (end, events) = events.split_last().expect("events");
        assert_eq!(*end, "[DONE]");
        let mut events: Vec<Value> = events
            .iter()
            .map(|event| serde_json::from_str(event).expect("JSON"))
            .collect();
        if tells {
            let usage = events.pop().expect("usage");
            assert_eq!(
                (&usage["choices"], &usage["usage"]["completion_tokens"]),
                (&json!([]), &json!(7))
            );
        }
        let seen: Vec<_> = events
            .iter()
            .map(|event| {
                assert_eq!(
                    (&event["id"], &event["object"]),
                    (&json!("chat-0"), &json!("chat.completion.chunk"))
                );
                let choice = &event["choices"][0];
                (
                    choice["delta"]["content"].as_str().expect("text"),
                    choice["finish_reason"].as_str(),
                )
            })
            .collect();
        assert_eq!(
            seen,
            [
                ("one two three", None),
                (" four five six", None),
                (" seven", Some("stop"))
            ]
        );
        assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    }
}

#[tokio::test]
async fn what_cannot_be_continued_by_text_is_asked_for_at_once() {
    let engine = Engine::start(generate).await;
    let sidecar = Sidecar::start("--decode-chunk-size=3", &[engine.address]).await;
    for members in [
        json!({"max_tokens": 3}),
        json!({"tools": [{"type": "function"}]}),
        json!({"n": 2}),
        json!({"response_format": {"type": "json_object"}}),
        json!({"logprobs": true}),
    ] {
        let before = engine.got().len();
        let body = chat(&members);
        assert_eq!(ask(&sidecar, &body, &[]).await.0, 200);
        let got = engine.got();
        assert_eq!(got.len(), before + 1, "{members}");
        assert_eq!(got[before].body, body.to_string(), "as it came");
    }
}

#[tokio::test]
async fn thoughts_are_asked_for_again_with_their_answer() {
    let engine = Engine::start(|got| {
        let is_cut = told(got)["max_tokens"] == 3;
        let (content, finish) = if is_cut { ("", "length") } else { ("four", "stop") };
        answer(
            200,
            &json!({
                "id": "a", "choices": [{"message": {"content": content, "reasoning": "two and two"}, "finish_reason": finish}],
                "usage": {"prompt_tokens": 5, "completion_tokens": 9},
            }),
        )
    })
    .await;
    let sidecar = Sidecar::start("--decode-chunk-size=3", &[engine.address]).await;
    let (status, text) = ask(&sidecar, &chat(&json!({})), &[]).await;
    let whole: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((status, engine.got().len()), (200, 2));
    let choice = &whole["choices"][0];
    assert_eq!(
        (
            &choice["message"]["content"],
            &choice["message"]["reasoning"],
            &choice["finish_reason"]
        ),
        (&json!("four"), &json!("two and two"), &json!("stop"))
    );
}

#[tokio::test]
async fn failures_are_told_by_status_first_and_by_event_later() {
    let engine = Engine::start(|got| {
        let asked = told(got);
        match (asked["messages"].as_array().map(Vec::len), asked["user"].as_str()) {
            (Some(1), Some("refused")) => answer(404, &json!({"error": {"message": "no such model"}})),
            (Some(1), _) => generate(got),
            (_, Some("full")) => answer(
                400,
                &json!({"error": {"message": "This model's maximum context length is 8 tokens"}}),
            ),
            _ => answer(500, &json!({"error": {"message": "broken", "code": 500}})),
        }
    })
    .await;
    let sidecar = Sidecar::start("--decode-chunk-size=3", &[engine.address]).await;
    let (status, text) = ask(&sidecar, &chat(&json!({"user": "refused", "stream": true})), &[]).await;
    assert_eq!((status, text.contains("no such model")), (404, true), "{text}");
    let (status, _) = ask(&sidecar, &chat(&json!({})), &[]).await;
    assert_eq!(status, 500);
    let (status, text) = ask(&sidecar, &chat(&json!({"stream": true})), &[]).await;
    assert_eq!(status, 200);
    assert!(
        text.ends_with("data: {\"error\":{\"message\":\"broken\",\"code\":500}}\n\n"),
        "{text}"
    );
    // No room left is an end, as it is in one go.
    let (status, text) = ask(&sidecar, &chat(&json!({"user": "full"})), &[]).await;
    let whole: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(
        (status, &whole["choices"][0]["finish_reason"]),
        (200, &json!("length")),
        "{text}"
    );
    assert_eq!(whole["choices"][0]["message"]["content"], "one two three");
}

#[tokio::test]
async fn only_the_first_part_reads_blocks_of_a_prefill_engine() {
    let prefill = Engine::saying(200, r#"{"kv_transfer_params":{"remote_host":"a"}}"#).await;
    let engine = Engine::start(generate).await;
    let sidecar = Sidecar::start("--decode-chunk-size=4", &[engine.address]).await;
    let headers = [("x-prefiller-host-port", prefill.address.to_string())];
    let (status, text) = ask(&sidecar, &chat(&json!({})), &headers).await;
    assert_eq!(status, 200);
    assert!(text.contains(&WORDS.concat()), "{text}");
    assert_eq!(prefill.got().len(), 1);
    let blocks: Vec<_> = engine
        .got()
        .iter()
        .map(|got| told(got)["kv_transfer_params"].clone())
        .collect();
    assert_eq!(blocks, [json!({"remote_host": "a"}), Value::Null]);
}
