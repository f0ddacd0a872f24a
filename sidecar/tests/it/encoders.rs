//! Media are encoded before the prompt is computed.

use crate::Sidecar;
use crate::engine::{Engine, json, nobody, request, send};

const BODY: &str = r#"{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"what?"},{"type":"image_url","image_url":{"url":"http://a"}},{"type":"image_url","image_url":{"url":"http://b"}}]}],"max_tokens":50}"#;

fn encoder(got: &crate::engine::Got) -> http::Response<axum::body::Body> {
    if got.body.contains("http://a") {
        json(
            200,
            r#"{"ec_transfer_params":{"hash-a":{"peer_host":"10.0.0.1","size_bytes":4096}}}"#,
        )
    } else {
        json(
            200,
            r#"{"ec_transfer_params":{"hash-b":{"peer_host":"10.0.0.2"}}}"#,
        )
    }
}

#[tokio::test]
async fn every_image_is_encoded_in_turn_and_the_next_leg_is_told_where() {
    let encoders = [Engine::start(encoder).await, Engine::start(encoder).await];
    let prefill = Engine::saying(200, r#"{"kv_transfer_params":{"remote_engine_id":"e"}}"#).await;
    let decode = Engine::saying(200, "{}").await;
    let sidecar = Sidecar::start("--ec-connector=ec-nixl", &[decode.address]).await;
    let headers = [
        (
            "x-encoder-hosts-ports",
            format!("{},{}", encoders[0].address, encoders[1].address),
        ),
        ("x-prefiller-host-port", prefill.address.to_string()),
        ("x-request-id", "r1".to_owned()),
    ];
    let asked = request("/v1/chat/completions", &headers, BODY);
    assert_eq!(send(sidecar.addresses[0], asked).await.0, 200);

    for (index, (engine, url)) in encoders.iter().zip(["http://a", "http://b"]).enumerate() {
        let [got] = &engine.got()[..] else {
            panic!("one item each: {:?}", engine.got())
        };
        let content = format!(
            r#""messages":[{{"role":"user","content":[{{"type":"image_url","image_url":{{"url":"{url}"}}}}]}}]"#
        );
        assert!(
            got.body.contains(&content) && got.body.contains("\"max_tokens\":1"),
            "{}",
            got.body
        );
        assert_eq!(
            got.header("x-request-id"),
            Some(format!("r1-enc-{index}").as_str())
        );
    }
    let params = r#""ec_transfer_params":{"hash-a":{"peer_host":"10.0.0.1","size_bytes":4096},"hash-b":{"peer_host":"10.0.0.2"}}"#;
    let (leg, main) = (&prefill.got()[0], &decode.got()[0]);
    assert!(
        leg.body.contains(params) && leg.body.contains("do_remote_decode"),
        "{}",
        leg.body
    );
    assert!(
        main.body.contains(params) && main.body.contains("remote_engine_id"),
        "{}",
        main.body
    );
    assert!(main.body.contains(r#""cache_hit_threshold":0"#), "{}", main.body);
    assert_eq!(
        (leg.header("x-request-id"), leg.header("x-encoder-hosts-ports")),
        (Some("r1"), None)
    );
}

#[tokio::test]
async fn an_encoder_that_fails_is_passed_over_and_without_any_the_client_is_told() {
    let (broken, well) = (Engine::saying(500, "{}").await, Engine::start(encoder).await);
    let decode = Engine::saying(200, "{}").await;
    let sidecar = Sidecar::start("--ec-connector=ec-nixl", &[decode.address]).await;
    let ask = async |hosts: String| {
        let asked = request("/v1/chat/completions", &[("x-encoder-hosts-ports", hosts)], BODY);
        send(sidecar.addresses[0], asked).await
    };
    assert_eq!(ask(format!("{},{}", broken.address, well.address)).await.0, 200);
    assert_eq!(well.got().len(), 2);
    assert!(decode.got()[0].body.contains("hash-a"));
    let (status, _, body) = ask(format!("{},{}", broken.address, nobody().await)).await;
    assert_eq!(status, 502);
    assert!(body.contains("BadGateway") && body.contains("item 0"), "{body}");
    assert_eq!(decode.got().len(), 1);
}

#[tokio::test]
async fn without_media_or_without_the_flag_no_encoder_is_asked() {
    let encoder = Engine::saying(500, "{}").await;
    let decode = Engine::saying(200, "{}").await;
    let headers = [("x-encoder-hosts-ports", encoder.address.to_string())];
    let text = r#"{"messages":[{"role":"user","content":"hello"}]}"#;
    for (flags, body) in [("--ec-connector=ec-nixl", text), ("", BODY)] {
        let sidecar = Sidecar::start(flags, &[decode.address]).await;
        let asked = request("/v1/chat/completions", &headers, body);
        assert_eq!(send(sidecar.addresses[0], asked).await.0, 200, "{flags}");
    }
    assert!(encoder.got().is_empty());
    assert_eq!(decode.got()[1].body, BODY);
}
