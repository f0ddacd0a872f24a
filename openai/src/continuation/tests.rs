use serde_json::{Value, json};

use super::*;
use crate::BodyKind;
use crate::sse::payloads;

const CHAT: &str = r#"{"model":"m","seed":12345678901234567890,"messages":[{"role":"user","content":"Say \u00e9"}],"max_tokens":10,"min_tokens":4,"stream":true,"stop":["x"],"temperature":0.70}"#;

fn event(delta: &str, finish: &str) -> String {
    format!(
        "data: {{\"id\":\"first\",\"object\":\"chat.completion.chunk\",\"created\":7,\"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":{finish}}}],\"usage\":null}}\n\n"
    )
}

fn followed(chunks: &[&str]) -> StreamFollower {
    let mut answer = StreamFollower::new(BodyKind::ChatCompletions, 1000).unwrap();
    for chunk in chunks {
        answer.observe(chunk.as_bytes());
    }
    answer.broke();
    answer
}

fn begun() -> StreamFollower {
    followed(&[
        &event(r#"{"role":"assistant","content":""}"#, "null"),
        &event(r#"{"content":"One \"two\\"}"#, "null"),
        &event(r#"{"content":"\n\u00e9 \"content\":\"x\""}"#, "null"),
    ])
}

#[test]
fn the_request_for_the_rest_holds_the_text_and_keeps_all_other_bytes() {
    let body = continue_request(BodyKind::ChatCompletions, CHAT.as_bytes(), &begun()).unwrap();
    assert_eq!(
        String::from_utf8(body).unwrap(),
        concat!(
            r#"{"model":"m","seed":12345678901234567890,"messages":[{"role":"user","content":"Say \u00e9"},"#,
            r#"{"role":"assistant","content":"One \"two\\\n\u00e9 \"content\":\"x\""}],"max_tokens":8,"min_tokens":2,"#,
            r#""stream":true,"stop":["x"],"temperature":0.70,"continue_final_message":true,"add_generation_prompt":false}"#
        )
    );
}

#[test]
fn chunks_may_be_cut_anywhere_and_half_events_do_not_count() {
    let stream: String = [
        event(r#"{"role":"assistant","content":""}"#, "null"),
        event(r#"{"content":"a\"b"}"#, "null"),
        event(r#"{"content":"cd"}"#, "null"),
    ]
    .concat();
    // With the last byte gone the blank line is not there: the client never got the last event.
    let cut = &stream[..stream.len() - 1];
    for size in 1..60 {
        let chunks: Vec<&str> = cut
            .as_bytes()
            .chunks(size)
            .map(|chunk| std::str::from_utf8(chunk).unwrap())
            .collect();
        let mut answer = followed(&chunks);
        assert_eq!(
            (answer.text(), answer.tokens()),
            (&br#"a\"b"#[..], 1),
            "chunks of {size}"
        );
        answer.observe(event(r#"{"content":"!"}"#, "null").as_bytes());
        assert_eq!(answer.text(), br#"a\"b!"#);
    }
}

#[test]
fn an_answer_without_text_is_asked_for_again_unchanged() {
    let answer = followed(&[&event(r#"{"role":"assistant","content":""}"#, "null")]);
    let body = continue_request(BodyKind::ChatCompletions, CHAT.as_bytes(), &answer).unwrap();
    assert_eq!(body, CHAT.as_bytes());
}

#[test]
fn completions_continue_their_prompt() {
    let mut answer = StreamFollower::new(BodyKind::Completions, 100).unwrap();
    answer.observe(b"data: {\"id\":\"c\",\"object\":\"text_completion\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"text\":\" more\\n\",\"finish_reason\":null}]}\r\n\r\n");
    let continued = |body: &str| {
        continue_request(BodyKind::Completions, body.as_bytes(), &answer)
            .map(|body| String::from_utf8(body).unwrap())
    };
    assert_eq!(
        continued(r#"{"prompt":"once \"","max_tokens":5}"#).unwrap(),
        r#"{"prompt":"once \" more\n","max_tokens":4}"#
    );
    assert_eq!(
        continued(r#"{"prompt":["a"]}"#),
        Err(NotContinuable::Member("prompt"))
    );
}

#[test]
fn what_the_text_does_not_carry_is_not_continued() {
    let answer = begun();
    for (member, value) in [
        ("n", json!(2)),
        ("logprobs", json!(true)),
        ("tools", json!([{"type": "function"}])),
        ("response_format", json!({"type": "json_object"})),
        ("continue_final_message", json!(true)),
        ("structured_outputs", json!({"regex": "a"})),
    ] {
        let mut body: Value = serde_json::from_str(CHAT).unwrap();
        body[member] = value;
        let refused = continue_request(BodyKind::ChatCompletions, body.to_string().as_bytes(), &answer);
        assert_eq!(refused, Err(NotContinuable::Member(member)));
    }
    let mut harmless: Value = serde_json::from_str(CHAT).unwrap();
    harmless["n"] = json!(1);
    harmless["tools"] = json!([]);
    harmless["logprobs"] = Value::Null;
    harmless["response_format"] = json!({"type": "text"});
    let body = harmless.to_string();
    assert!(continue_request(BodyKind::ChatCompletions, body.as_bytes(), &answer).is_ok());
}

#[test]
fn answers_with_more_than_text_are_given_up() {
    for (delta, why) in [
        (r#"{"tool_calls":[{"index":0}]}"#, "the answer calls a tool"),
        (r#"{"reasoning_content":"hm"}"#, "the answer holds reasoning"),
        (r#"{"reasoning": "hm"}"#, "the answer holds reasoning"),
    ] {
        assert_eq!(followed(&[&event(delta, "null")]).lost(), Some(why));
    }
    let plain = r#"{"content":"x","tool_calls":[],"reasoning_content":null,"reasoning":""}"#;
    assert_eq!(followed(&[&event(plain, "null")]).lost(), None);
    assert_eq!(
        followed(&["data: {\"error\":{}}\n\n"]).lost(),
        Some("the engine reported an error")
    );
    let long = event(&format!("{{\"content\":\"{}\"}}", "x".repeat(1001)), "null");
    assert_eq!(followed(&[&long]).lost(), Some("the text so far is too long"));
}

#[test]
fn an_answer_that_lacks_only_its_end_is_ended() {
    let finished = followed(&[&event(r#"{"content":"x"}"#, "\"stop\"")]);
    assert!(finished.is_finished() && !finished.is_done());
    assert_eq!(
        &ending(BodyKind::ChatCompletions, &finished, LENGTH)[..],
        crate::sse::DONE
    );

    let capped: String = (0..10).map(|_| event(r#"{"content":"x"}"#, "null")).collect();
    let capped = followed(&[&capped]);
    assert_eq!(
        continue_request(BodyKind::ChatCompletions, CHAT.as_bytes(), &capped),
        Err(NotContinuable::AtCap)
    );
    let end = payloads(&ending(BodyKind::ChatCompletions, &capped, LENGTH));
    let event: Value = serde_json::from_slice(&end[0]).unwrap();
    assert_eq!(
        (&event["id"], &event["choices"][0]["finish_reason"]),
        (&json!("first"), &json!("length"))
    );
    assert_eq!(end[1], "[DONE]");
}

#[test]
fn the_rest_carries_on_under_the_first_id_with_one_opening_and_the_whole_usage() {
    let rest = [
        r#"{"id":"second","object":"chat.completion.chunk","created":9,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#,
        r#"{"id":"second","object":"chat.completion.chunk","created":9,"model":"m","choices":[{"index":0,"delta":{"content":" three"},"finish_reason":"stop"}]}"#,
        r#"{"id":"second","object":"chat.completion.chunk","created":9,"model":"m","choices":[],"usage":{"prompt_tokens":12,"total_tokens":15,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":11}}}"#,
        "[DONE]",
    ];
    let stream: String = rest.map(|data| ["data: ", data, "\n\n"].concat()).concat();
    for size in [1, 7, 100, 10_000] {
        let mut seam = Seam::after(&begun());
        let mut out = Vec::new();
        for chunk in stream.as_bytes().chunks(size) {
            out.extend_from_slice(&seam.push(chunk, false));
        }
        out.extend_from_slice(&seam.push(b"", true));
        let events = payloads(&out);
        assert_eq!(events.len(), 3, "the second opening is left out");
        assert_eq!(
            events[0],
            rest[1]
                .replace("second", "first")
                .replace("\"created\":9", "\"created\":7")
        );
        let usage: Value = serde_json::from_slice(&events[1]).unwrap();
        assert_eq!(
            usage["usage"],
            json!({"prompt_tokens": 10, "total_tokens": 15, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 10}})
        );
        assert_eq!(events[2], "[DONE]");
    }
}
