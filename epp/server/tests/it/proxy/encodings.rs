//! Compressed request bodies through the built-in proxy.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::Request;
use http_body_util::Full;

use super::rig::{Rig, rig, text};
use crate::engine::{Engine, Script};

const CHAT: &str = r#"{"model":"m","messages":[{"role":"user","content":"hello"}] }"#;

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).expect("to memory");
    encoder.finish().expect("to memory")
}

async fn send(rig: &Rig, encoding: &str, rewrite: Option<&str>, body: Vec<u8>) -> (u16, String) {
    let mut request = Request::post("/v1/chat/completions")
        .header("host", "x")
        .header("content-type", "application/json")
        .header("content-encoding", encoding);
    if let Some(model) = rewrite {
        request = request.header("x-llm-d-model-name-rewrite", model);
    }
    let request = request.body(Full::from(Bytes::from(body))).expect("a request");
    let answer = rig.send(request).await;
    (answer.status().as_u16(), text(answer).await)
}

#[tokio::test]
async fn the_engine_gets_what_the_client_sent_or_plain_json_with_the_new_name() {
    let engine = Engine::start(Script::Json).await;
    let rig = rig(&[&engine]).await;
    let compressed = gzip(CHAT);
    assert_eq!(send(&rig, "gzip", None, compressed.clone()).await.0, 200);
    let (status, answer) = send(&rig, "gzip", Some("renamed"), compressed.clone()).await;
    assert_eq!(status, 200);
    assert!(answer.contains(r#""model":"m""#), "{answer}");
    let received = engine.received();
    assert_eq!(received[0].body, compressed);
    assert_eq!(received[0].header("content-encoding"), Some("gzip"));
    assert_eq!(received[1].body, CHAT.replace("\"m\"", "\"renamed\"").as_bytes());
    assert_eq!(received[1].header("content-encoding"), None);
    let refused = send(&rig, "br", None, CHAT.into()).await;
    assert_eq!(refused.0, 415, "{}", refused.1);
}
