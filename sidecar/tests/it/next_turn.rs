//! The turn that follows a chat, prepared while nobody asks.

use serde_json::Value;
use tokio::sync::Notify;

use std::sync::Arc;

use crate::engine::{Engine, json, request, send};
use crate::{Sidecar, until};

const CHAT: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}],"max_tokens":50}"#;
const ANSWER: &str = r#"{"choices":[{"index":0,"message":{"role":"assistant","content":"hello"}}]}"#;
const PREFILLED: &str = r#"{"choices":[],"kv_transfer_params":{"remote_block_ids":[[1]]}}"#;
const ON: &str = "--enable-speculative-prefill";
const WARMED: &str = "llm_d_disagg_sidecar_next_turns_total{outcome=\"warmed\"} 1";

fn asks() -> (&'static str, String) {
    ("x-speculative-prefill", "true".to_owned())
}

/// What an engine was asked, as the contents of its messages.
fn turns(engine: &Engine) -> Vec<Vec<String>> {
    let contents = |body: &str| {
        let body: Value = serde_json::from_str(body).expect("JSON");
        let messages = body["messages"].as_array().expect("a chat").clone();
        let content = |message: &Value| message["content"].as_str().expect("text").to_owned();
        messages.iter().map(content).collect()
    };
    engine.got().iter().map(|got| contents(&got.body)).collect()
}

#[tokio::test]
async fn the_engine_of_a_chat_computes_the_beginning_of_the_next_turn() {
    let engine = Engine::saying(200, ANSWER).await;
    let sidecar = Sidecar::start(ON, &[engine.address]).await;
    let (status, _, answer) = send(
        sidecar.addresses[0],
        request("/v1/chat/completions", &[asks()], CHAT),
    )
    .await;
    assert_eq!((status.as_u16(), answer.as_str()), (200, ANSWER));
    until("the next turn", || sidecar.counts(WARMED)).await;
    assert_eq!(turns(&engine), [vec!["hi"], vec!["hi", "hello", " "]]);
    let [chat, next] = &engine.got()[..] else {
        panic!("{:?}", engine.got())
    };
    assert!(
        next.body.contains(r#""max_tokens":1,"#) && !chat.body.contains("hello"),
        "{}",
        next.body
    );
    for got in [chat, next] {
        assert_eq!(got.header("x-speculative-prefill"), None);
        assert_eq!(
            got.header("content-length"),
            Some(got.body.len().to_string().as_str())
        );
    }
}

#[tokio::test]
async fn behind_a_prefill_engine_it_is_that_one() {
    let (prefill, decode) = (
        Engine::saying(200, PREFILLED).await,
        Engine::saying(200, ANSWER).await,
    );
    let sidecar = Sidecar::start(ON, &[decode.address]).await;
    let headers = [asks(), ("x-prefiller-host-port", prefill.address.to_string())];
    let (status, ..) = send(
        sidecar.addresses[0],
        request("/v1/chat/completions", &headers, CHAT),
    )
    .await;
    assert_eq!(status, 200);
    until("the next turn", || sidecar.counts(WARMED)).await;
    assert_eq!(turns(&prefill), [vec!["hi"], vec!["hi", "hello", " "]]);
    assert_eq!(turns(&decode), [vec!["hi"]]);
    assert!(
        !prefill.got()[1].body.contains("do_remote_decode"),
        "its blocks are for nobody"
    );
}

#[tokio::test]
async fn nothing_is_prepared_unasked_or_beside_another_one() {
    let open = Arc::new(Notify::new());
    let hold = Arc::clone(&open);
    let engine = Engine::start(move |got| {
        if !got.body.contains("hello") {
            return json(200, ANSWER);
        }
        let hold = Arc::clone(&hold);
        let answer = futures_util::stream::once(async move {
            hold.notified().await;
            Ok::<_, std::io::Error>(bytes::Bytes::from_static(b"{}"))
        });
        http::Response::new(axum::body::Body::from_stream(answer))
    })
    .await;
    let sidecar = Sidecar::start(ON, &[engine.address]).await;
    let ask = async |headers: &[(&str, String)]| {
        let asked = request("/v1/chat/completions", headers, CHAT);
        assert_eq!(send(sidecar.addresses[0], asked).await.0, 200);
    };
    ask(&[]).await;
    ask(&[("x-speculative-prefill", "no".to_owned())]).await;
    assert_eq!(engine.got().len(), 2);
    ask(&[asks()]).await;
    until("the next turn to begin", || engine.got().len() == 4).await;
    ask(&[asks()]).await;
    assert!(sidecar.counts("llm_d_disagg_sidecar_next_turns_total{outcome=\"skipped\"} 1"));
    open.notify_one();
    until("its end", || sidecar.counts(WARMED)).await;
    assert_eq!(engine.got().len(), 5);

    let off = Sidecar::start("", &[engine.address]).await;
    let asked = request("/v1/chat/completions", &[asks()], CHAT);
    assert_eq!(send(off.addresses[0], asked).await.0, 200);
    assert!(off.counts("llm_d_disagg_sidecar_next_turns_total{outcome=\"skipped\"} 0"));
    assert_eq!(
        engine
            .got()
            .last()
            .and_then(|got| got.header("x-speculative-prefill")),
        None
    );
}
