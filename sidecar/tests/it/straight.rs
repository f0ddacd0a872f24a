//! What has no prefill leg.

use crate::Sidecar;
use crate::engine::{Engine, nobody, request, send};

#[tokio::test]
async fn everything_else_goes_to_the_engine_on_this_host_as_it_is() {
    let decode = Engine::saying(200, "{}").await;
    let prefill = Engine::saying(500, "{}").await;
    let sidecar = Sidecar::start("", &[decode.address]).await;
    let named = [("x-prefiller-host-port", prefill.address.to_string())];
    for (path, headers, body) in [
        ("/v1/chat/completions", &[][..], "{\"messages\" : []}"),
        ("/v1/embeddings", &named[..], "{\"input\":1}"),
        ("/v1/models", &named[..], ""),
        ("/v1/completions", &[][..], "no JSON"),
    ] {
        assert_eq!(
            send(sidecar.addresses[0], request(path, headers, body)).await.0,
            200,
            "{path}"
        );
        let got = decode.got().pop().expect("forwarded");
        assert_eq!((got.path.as_str(), got.body.as_str()), (path, body));
        assert_eq!(got.header("x-prefiller-host-port"), None);
    }
    assert!(prefill.got().is_empty());
}

#[tokio::test]
async fn health_is_answered_without_the_engine() {
    let sidecar = Sidecar::start("", &[nobody().await]).await;
    let (status, _, body) = send(sidecar.addresses[0], request("/health", &[], "")).await;
    assert_eq!((status.as_u16(), body.as_str()), (200, ""));
    let (status, _, body) = send(sidecar.addresses[0], request("/v1/models", &[], "")).await;
    assert_eq!(status, 503);
    let error: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(
        (&error["object"], &error["type"]),
        (&"error".into(), &"ServiceUnavailable".into())
    );
    assert_eq!(
        (error["code"].as_u64(), error["param"].is_null()),
        (Some(503), true)
    );
}

#[tokio::test]
async fn each_listener_leads_to_its_rank_unless_the_header_names_another() {
    let engines = [Engine::saying(200, "{}").await, Engine::saying(200, "{}").await];
    let sidecar = Sidecar::start(
        "--port=8000 --data-parallel-size=2",
        &engines.each_ref().map(|e| e.address),
    )
    .await;
    let counts = || engines.each_ref().map(|engine| engine.got().len());
    let body = "{\"messages\":[]}";
    for (listener, header, wanted) in [
        (0, None, [1, 0]),
        (1, None, [1, 1]),
        (0, Some("10.0.0.9:8001"), [1, 2]),
        (1, Some("10.0.0.9:8000"), [2, 2]),
        (1, Some("10.0.0.9:9999"), [2, 3]),
    ] {
        let headers: Vec<_> = header
            .iter()
            .map(|host| ("x-data-parallel-host-port", (*host).to_owned()))
            .collect();
        let asked = request("/v1/chat/completions", &headers, body);
        assert_eq!(send(sidecar.addresses[listener], asked).await.0, 200);
        assert_eq!(counts(), wanted, "{listener} {header:?}");
    }
}

#[tokio::test]
async fn engines_are_spoken_with_over_tls_where_it_is_asked_for() {
    let prefilled = r#"{"kv_transfer_params":{"remote_host":"a"}}"#;
    let (prefill, decode) = (
        Engine::saying(200, prefilled).await,
        Engine::saying(200, "{}").await,
    );
    // Another sidecar is the TLS before an engine, with a certificate that nobody has signed.
    let before = async |engine: &Engine| Sidecar::start("--secure-serving=true", &[engine.address]).await;
    let (prefill_tls, decode_tls) = (before(&prefill).await, before(&decode).await);
    let named = [("x-prefiller-host-port", prefill_tls.addresses[0].to_string())];
    let body = "{\"prompt\":\"p\"}";
    let flags = "--enable-tls=prefiller,decoder --tls-insecure-skip-verify=prefiller,decoder";
    let sidecar = Sidecar::start(flags, &decode_tls.addresses).await;
    let (status, ..) = send(sidecar.addresses[0], request("/v1/completions", &named, body)).await;
    assert_eq!((status.as_u16(), prefill.got().len()), (200, 1));
    assert!(decode.got()[0].body.contains("remote_host"));

    let plain = Sidecar::start("", &decode_tls.addresses).await;
    let (status, ..) = send(plain.addresses[0], request("/v1/models", &[], "")).await;
    assert_ne!(status, 200, "plain HTTP to a TLS port");
}
