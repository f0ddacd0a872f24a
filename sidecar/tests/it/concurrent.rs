//! Connectors whose legs run at the same time: what each engine is told.

use serde_json::{Value, json};

use crate::Sidecar;
use crate::engine::{Engine, Got, json as answer, request, send};

const BODY: &str = r#"{"prompt":"p","max_tokens":50,"stream":false}"#;
const ANSWER: &str = "{\"choices\":[]}";

fn told(got: &Got) -> Value {
    serde_json::from_str(&got.body).expect("JSON")
}

/// One request through the sidecar; the bodies of its prefill and decode legs.
async fn legs(flags: &str, prefill: &Engine, headers: &[(&str, String)]) -> (Got, Got) {
    let decode = Engine::saying(200, ANSWER).await;
    let sidecar = Sidecar::start(flags, &[decode.address]).await;
    let mut all = vec![("x-prefiller-host-port", prefill.address.to_string())];
    all.extend_from_slice(headers);
    let asked = request("/v1/completions", &all, BODY);
    let (status, _, text) = send(sidecar.addresses[0], asked).await;
    assert_eq!((status.as_u16(), text.as_str()), (200, ANSWER));
    crate::until("a prefill leg", || !prefill.got().is_empty()).await;
    let leg = prefill
        .got()
        .into_iter()
        .rfind(|got| got.path == "/v1/completions");
    (leg.expect("a leg"), decode.got().pop().expect("asked"))
}

#[tokio::test]
async fn mooncake_names_one_of_the_ranks_that_the_bootstrap_server_tells() {
    let ranks = r#"{"0":{"engine_id":"e0","x":1},"1":{"engine_id":"e1"},"2":{}}"#;
    let bootstrap = Engine::saying(200, ranks).await;
    let prefill = Engine::saying(200, "{}").await;
    let flags = format!(
        "--kv-connector=mooncake --mooncake-bootstrap-port={}",
        bootstrap.address.port()
    );
    let (leg, main) = legs(&flags, &prefill, &[]).await;
    let [query] = &bootstrap.got()[..] else {
        panic!("asked once: {:?}", bootstrap.got())
    };
    assert_eq!(query.path, "/query");
    let (kept, read) = (told(&leg), told(&main));
    let id = kept["kv_transfer_params"]["transfer_id"].as_str().expect("an id");
    assert!(id.starts_with("xfer-"), "{id}");
    assert_eq!(
        kept["kv_transfer_params"],
        json!({"do_remote_decode": true, "do_remote_prefill": false, "transfer_id": id})
    );
    assert_eq!(
        (&kept["max_tokens"], &read["max_tokens"]),
        (&json!(1), &json!(50))
    );
    let rank = leg.header("x-data-parallel-rank").expect("a rank");
    assert!(["0", "1"].contains(&rank), "{rank}");
    assert_eq!(
        read["kv_transfer_params"],
        json!({
            "do_remote_prefill": true, "do_remote_decode": false, "transfer_id": id,
            "remote_bootstrap_addr": format!("http://{}", bootstrap.address),
            "remote_engine_id": format!("e{rank}"),
        })
    );
}

#[tokio::test]
async fn without_a_bootstrap_server_the_decode_engine_computes_the_prompt() {
    let nobody = crate::engine::nobody().await;
    let prefill = Engine::saying(200, "{}").await;
    let decode = Engine::saying(200, ANSWER).await;
    for (policy, expected) in [("fallback", 200), ("error", 502)] {
        let flags = format!(
            "--kv-connector=mooncake --mooncake-bootstrap-port={} --prefill-failure={policy}",
            nobody.port()
        );
        let sidecar = Sidecar::start(&flags, &[decode.address]).await;
        let headers = [("x-prefiller-host-port", prefill.address.to_string())];
        let (status, ..) = send(sidecar.addresses[0], request("/v1/completions", &headers, BODY)).await;
        assert_eq!(status, expected, "{policy}");
    }
    assert_eq!(decode.got().len(), 1);
    assert_eq!(decode.got()[0].body, BODY);
    assert!(prefill.got().is_empty());
}

#[tokio::test]
async fn offloading_pulls_by_an_id_and_from_a_source_of_cached_blocks() {
    let prefill = Engine::saying(200, "{}").await;
    let source = [("x-kv-cache-source-host-port", "10.0.0.9:8000".to_owned())];
    let flags = "--kv-connector=offloading --p2p-connector-port=7000";
    let (leg, main) = legs(flags, &prefill, &source).await;
    assert_eq!(leg.header("x-kv-cache-source-host-port"), None);
    let (kept, read) = (told(&leg), told(&main));
    let kept = &kept["kv_transfer_params"];
    let id = kept["remote_decoder"]["kv_request_id"].as_str().expect("an id");
    assert_eq!(
        read["kv_transfer_params"],
        json!({"remote_prefiller": {"kv_request_id": id, "remote_host": "127.0.0.1", "remote_port": 7000}})
    );
    let pulled = &kept["remote_kv_source"];
    assert_eq!(
        (&pulled["remote_host"], &pulled["remote_port"]),
        (&json!("10.0.0.9"), &json!(7000))
    );
    assert_ne!(pulled["kv_request_id"], id, "the puller's own");
}

#[tokio::test]
async fn a_source_without_a_prefill_engine_is_told_to_the_decode_engine() {
    let decode = Engine::saying(200, ANSWER).await;
    let source = [("x-kv-cache-source-host-port", "10.0.0.9:8000".to_owned())];
    for (flags, is_told) in [
        ("--kv-connector=offloading", true),
        ("--enable-p2p-pull", true),
        // Its engines have no tier to pull into.
        ("", false),
        ("--kv-connector=sglang --enable-p2p-pull", false),
    ] {
        let sidecar = Sidecar::start(flags, &[decode.address]).await;
        let (status, ..) = send(sidecar.addresses[0], request("/v1/completions", &source, BODY)).await;
        assert_eq!(status, 200, "{flags}");
        let told = told(&decode.got().pop().expect("asked"));
        let host = &told["kv_transfer_params"]["remote_kv_source"]["remote_host"];
        assert_eq!(host == "10.0.0.9", is_told, "{flags}: {told}");
    }
}

const WRITES: &str = "--moriio-write-mode --moriio-local-pod-ip=10.0.0.1 --moriio-dp-size=8 --moriio-prefill-handshake-port=6401 --moriio-prefill-notify-port=61105";

fn written(rank: &Value, id: &str) -> Value {
    json!({
        "do_remote_decode": true, "do_remote_prefill": false, "remote_engine_id": null, "remote_block_ids": null,
        "remote_host": "10.0.0.1", "remote_port": null, "remote_notify_port": 61005, "remote_dp_rank": rank,
        "remote_dp_rank_override": true, "remote_handshake_port": 6301, "transfer_id": format!("tx{id}"),
        "tp_size": 1, "remote_dp_size": 8,
    })
}

#[tokio::test]
async fn moriio_writes_to_the_rank_that_both_legs_are_held_to() {
    let prefill = Engine::saying(
        200,
        r#"{"kv_transfer_params":{"remote_host":"10.0.0.2","remote_dp_rank":5}}"#,
    )
    .await;
    let (leg, main) = legs(WRITES, &prefill, &[("x-request-id", "request-1".to_owned())]).await;
    let (kept, read) = (told(&leg), told(&main));
    let rank = &kept["kv_transfer_params"]["remote_dp_rank"];
    assert_eq!(
        leg.header("x-data-parallel-rank"),
        Some(rank.to_string().as_str())
    );
    assert_eq!(kept["kv_transfer_params"], written(rank, "request-1"));
    assert_eq!(main.header("x-data-parallel-rank"), Some("5"));
    assert_eq!(
        read["kv_transfer_params"],
        json!({
            "remote_host": "10.0.0.2", "remote_dp_rank": 5, "remote_dp_rank_override": true,
            "transfer_id": "txrequest-1", "remote_notify_port": 61005, "remote_handshake_port": 6301,
            "remote_dp_size": 8,
        })
    );
}

#[tokio::test]
async fn moriio_in_parallel_knows_what_the_prefill_engine_would_say() {
    let flags = format!("{WRITES} --moriio-parallel-dispatch");
    let prefill = Engine::saying(200, "{}").await;
    let (leg, main) = legs(&flags, &prefill, &[("x-request-id", "request-1".to_owned())]).await;
    let (kept, read) = (told(&leg), told(&main));
    let rank = &kept["kv_transfer_params"]["remote_dp_rank"];
    assert_eq!(kept["kv_transfer_params"], written(rank, "request-1"));
    for got in [&leg, &main] {
        assert_eq!(
            got.header("x-data-parallel-rank"),
            Some(rank.to_string().as_str())
        );
    }
    assert_eq!(
        read["kv_transfer_params"],
        json!({
            "do_remote_prefill": true, "do_remote_decode": false, "remote_engine_id": "127.0.0.1:6401",
            "remote_block_ids": [], "remote_host": "127.0.0.1", "remote_port": 6401, "remote_notify_port": 61105,
            "remote_dp_rank": rank, "remote_dp_rank_override": true, "remote_handshake_port": 6401,
            "transfer_id": "txrequest-1", "tp_size": 1, "remote_dp_size": 8,
        })
    );
}

#[tokio::test]
async fn moriio_in_parallel_shows_no_answer_before_its_prompt_is_computed() {
    let never = Engine::start(|_| {
        let body = futures_util::stream::pending::<std::io::Result<bytes::Bytes>>();
        http::Response::new(axum::body::Body::from_stream(body))
    })
    .await;
    let refusing = Engine::start(|_| answer(422, "{\"no\":1}")).await;
    let decode = Engine::saying(200, ANSWER).await;
    let flags = format!("{WRITES} --moriio-parallel-dispatch --moriio-parallel-decode-wait-timeout=50ms");
    let sidecar = Sidecar::start(&flags, &[decode.address]).await;
    for (engine, status) in [(&never, 504), (&refusing, 422)] {
        let headers = [("x-prefiller-host-port", engine.address.to_string())];
        let (got, _, text) = send(sidecar.addresses[0], request("/v1/completions", &headers, BODY)).await;
        assert_eq!(got, status, "{text}");
    }
}
