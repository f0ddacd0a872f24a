//! Images encoded on one engine and used on another.

use llmd_sim::{SimArgs, Simulator};
use serde_json::{Value, json};

use super::client::{post, start};

const CHAT: &str = "/v1/chat/completions";

async fn engine(role: &str) -> Simulator {
    let config = json!({"ec_connector": "ECCPUConnector", "ec_role": role}).to_string();
    start(|args: &mut SimArgs| {
        args.encodings.ec_transfer_config = Some(config);
        args.encodings.ec_side_channel_host = "127.0.0.1".into();
        args.encodings.ec_side_channel_port = 0;
    })
    .await
}

fn request(urls: &[&str]) -> Value {
    let mut parts = vec![json!({"type": "text", "text": "What is this?"})];
    parts.extend(
        urls.iter()
            .map(|url| json!({"type": "image_url", "image_url": {"url": url}})),
    );
    json!({"model": "m", "messages": [{"role": "user", "content": parts}], "max_tokens": 6, "ignore_eos": true})
}

#[tokio::test]
async fn encodings_are_taken_from_the_engine_that_made_them_and_change_nothing() {
    let (encode, prefill, alone) = (
        engine("ec_producer").await,
        engine("ec_consumer").await,
        engine("ec_consumer").await,
    );
    let body = request(&["http://a/1.png", "http://a/2.png"]);
    let (status, encoded) = post(&encode, CHAT, &body).await;
    assert_eq!(status, 200, "{encoded}");
    let params = encoded["ec_transfer_params"].as_object().unwrap();
    assert_eq!(params.len(), 2);
    assert!(
        params
            .values()
            .all(|one| one["peer_host"] == "127.0.0.1" && one["peer_port"] != 0),
        "{encoded}"
    );

    let mut leg = body.clone();
    leg["ec_transfer_params"] = encoded["ec_transfer_params"].clone();
    let (status, answer) = post(&prefill, CHAT, &leg).await;
    let (_, whole) = post(&alone, CHAT, &body).await;
    assert_eq!((status, &answer["choices"]), (200, &whole["choices"]));
    assert_eq!(
        answer.get("ec_transfer_params"),
        None,
        "a consumer has nothing to give"
    );

    drop(encode);
    let (status, answer) = post(&prefill, CHAT, &leg).await;
    assert!(
        status == 500 && answer.to_string().contains("cannot be asked"),
        "{answer}"
    );
}

#[tokio::test]
async fn an_encoding_that_nobody_made_is_refused_and_so_are_media_without_an_encoder() {
    let (encode, prefill, text) = (
        engine("ec_both").await,
        engine("ec_consumer").await,
        start(|_| {}).await,
    );
    let (_, encoded) = post(&encode, CHAT, &request(&["http://a/1.png"])).await;
    let encoding = encoded["ec_transfer_params"]
        .as_object()
        .unwrap()
        .values()
        .next()
        .unwrap()
        .clone();
    let mut leg = request(&["http://a/9.png"]);
    leg["ec_transfer_params"] = json!({"0123456789abcdef": encoding});
    let (status, answer) = post(&prefill, CHAT, &leg).await;
    assert!(
        status == 500 && answer.to_string().contains("has no encoding 0123456789abcdef"),
        "{answer}"
    );
    let (status, answer) = post(&text, CHAT, &request(&["http://a/1.png"])).await;
    assert!(
        status == 400 && answer.to_string().contains("text only"),
        "{answer}"
    );
}
