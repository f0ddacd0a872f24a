//! Prefill on one engine, decode on another: who may read which blocks, how long they stay, what comes out.

use std::time::Duration;

use http::Method;
use llmd_sim::failure::FailureKind;
use llmd_sim::{SimArgs, Simulator};
use serde_json::{Value, json};

use super::client::{events, get, post, send, start, text, wait_for_metric};

const NIXL: &str = r#"{"kv_connector":"NixlConnector","kv_role":"kv_both"}"#;
const PATH: &str = "/v1/completions";
const USAGE: &str = "vllm:kv_cache_usage_perc";

fn config(policy: &str, lease: f64) -> String {
    json!({"kv_connector": "NixlConnector", "kv_role": "kv_both", "kv_load_failure_policy": policy,
        "kv_connector_extra_config": {"kv_lease_duration": lease}})
    .to_string()
}

fn with(args: &mut SimArgs, config: &str) {
    args.transfer.kv_transfer_config = Some(config.to_owned());
    args.transfer.nixl_side_channel_host = "127.0.0.1".into();
    args.transfer.nixl_side_channel_port = 0;
}

async fn engine(change: impl FnOnce(&mut SimArgs)) -> Simulator {
    start(|args| {
        with(args, NIXL);
        change(args);
    })
    .await
}

fn request(prompt: &str) -> Value {
    json!({"model": "m", "prompt": prompt, "max_tokens": 20, "ignore_eos": true})
}

fn prefill_of(request: &Value) -> Value {
    let mut leg = request.clone();
    leg["max_tokens"] = json!(1);
    leg["kv_transfer_params"] = json!({"do_remote_decode": true, "do_remote_prefill": false, "remote_engine_id": null,
        "remote_block_ids": null, "remote_host": null, "remote_port": null});
    leg
}

/// Runs the prefill leg; the decode leg follows from its answer as the sidecar makes it.
async fn prefilled(engine: &Simulator, request: &Value) -> Value {
    let (status, answer) = post(engine, PATH, &prefill_of(request)).await;
    assert_eq!(status, 200, "{answer}");
    let mut leg = request.clone();
    leg["kv_transfer_params"] = answer["kv_transfer_params"].clone();
    leg
}

fn words(count: usize) -> String {
    "a word and ".repeat(count)
}

#[tokio::test]
async fn two_engines_answer_what_one_answers_and_only_one_computes_the_prompt() {
    let (prefill, decode, alone) = (
        engine(|_| {}).await,
        engine(|args| args.transfer.kv_cache_transfer_time_per_token = Some(Duration::from_micros(10))).await,
        start(|_| {}).await,
    );
    let request = request(&words(30));
    let leg = prefilled(&prefill, &request).await;
    let params = &leg["kv_transfer_params"];
    let tokens = params["remote_num_tokens"].as_u64().unwrap();
    assert_eq!(
        (
            &params["do_remote_prefill"],
            &params["do_remote_decode"],
            &params["tp_size"]
        ),
        (&json!(true), &json!(false), &json!(1))
    );
    assert_eq!(params["remote_host"], "127.0.0.1");
    let blocks = params["remote_block_ids"][0].as_array().unwrap().len() as u64;
    assert_eq!(blocks, tokens.div_ceil(16), "{params}");
    // 8,192 blocks, one of them reserved: what is held counts as used.
    wait_for_metric(&prefill, USAGE, blocks as f64 / 8191.0).await;

    let mut streamed = leg.clone();
    streamed["stream"] = json!(true);
    let pieces = events(&decode, PATH, &streamed).await;
    let disaggregated: String = pieces
        .iter()
        .map(|event| event["choices"][0]["text"].as_str().unwrap())
        .collect();
    let (_, whole) = post(&alone, PATH, &request).await;
    assert_eq!(whole["choices"][0]["text"], disaggregated);
    assert_eq!(whole["usage"]["prompt_tokens"], tokens);

    wait_for_metric(&prefill, USAGE, 0.0).await;
    wait_for_metric(&decode, "vllm:nixl_xfer_time_seconds_count", 1.0).await;
    wait_for_metric(
        &decode,
        "vllm:external_prefix_cache_hits_total",
        tokens as f64 - 1.0,
    )
    .await;
    wait_for_metric(&decode, "vllm:request_prefill_kv_computed_tokens_sum", 1.0).await;
    // What was read is cached like what was computed.
    let (_, again) = post(&decode, PATH, &request).await;
    assert_eq!(
        again["usage"]["prompt_tokens_details"]["cached_tokens"],
        (tokens - 1) / 16 * 16
    );
}

#[tokio::test]
async fn a_prompt_that_goes_on_beyond_the_blocks_is_computed_from_there() {
    let (prefill, decode, alone) = (engine(|_| {}).await, engine(|_| {}).await, start(|_| {}).await);
    let leg = prefilled(&prefill, &request(&words(30))).await;
    let tokens = leg["kv_transfer_params"]["remote_num_tokens"].as_u64().unwrap();
    let longer = request(&words(40));
    let mut decoded = longer.clone();
    decoded["kv_transfer_params"] = leg["kv_transfer_params"].clone();
    let (status, answer) = post(&decode, PATH, &decoded).await;
    assert_eq!(status, 200, "{answer}");
    let (_, whole) = post(&alone, PATH, &longer).await;
    assert_eq!(answer["choices"], whole["choices"]);
    assert_eq!(answer["usage"]["prompt_tokens_details"]["cached_tokens"], tokens);
}

#[tokio::test]
async fn chat_answers_carry_the_transfer_too_however_they_ended() {
    let prefill = engine(|_| {}).await;
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": words(9)}], "max_tokens": 1,
        "kv_transfer_params": {"do_remote_decode": true}});
    let (_, answer) = post(&prefill, "/v1/chat/completions", &body).await;
    assert!(
        answer["kv_transfer_params"]["remote_engine_id"].is_string(),
        "{answer}"
    );
    assert_eq!(answer["kv_transfer_params"]["remote_request_id"], answer["id"]);
    let first = answer["choices"][0]["message"]["content"]
        .as_str()
        .unwrap()
        .to_owned();
    body["stop"] = json!([first]);
    let (_, stopped) = post(&prefill, "/v1/chat/completions", &body).await;
    assert_eq!(stopped["choices"][0]["finish_reason"], "stop");
    assert!(
        stopped["kv_transfer_params"].is_object(),
        "vLLM keeps these blocks, too: {stopped}"
    );
}

#[tokio::test]
async fn a_transfer_is_read_once_and_unknown_ones_are_refused() {
    let (prefill, decode) = (engine(|_| {}).await, engine(|_| {}).await);
    let leg = prefilled(&prefill, &request(&words(5))).await;
    assert_eq!(post(&decode, PATH, &leg).await.0, 200);
    let (status, answer) = post(&decode, PATH, &leg).await;
    assert_eq!(status, 500, "{answer}");
    assert!(
        answer["error"]["message"]
            .as_str()
            .unwrap()
            .contains("unknown or expired"),
        "{answer}"
    );

    let fresh = prefilled(&prefill, &request(&words(6))).await;
    for (member, value, expected) in [
        ("remote_request_id", json!("cmpl-other"), "unknown or expired"),
        ("remote_engine_id", json!("another"), "engine another is gone"),
        ("remote_port", json!(1), "cannot be asked"),
        ("remote_block_ids", json!([[7]]), "other blocks"),
    ] {
        let mut wrong = fresh.clone();
        wrong["kv_transfer_params"][member] = value;
        let (status, answer) = post(&decode, PATH, &wrong).await;
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(
            status == 500 && message.contains(expected),
            "{member}: {status} {message}"
        );
    }
    wait_for_metric(&decode, "vllm:nixl_num_failed_transfers_total", 5.0).await;
    // Engines before groups of KV caches name blocks in one list.
    let mut flat = prefilled(&prefill, &request(&words(7))).await;
    let blocks = flat["kv_transfer_params"]["remote_block_ids"][0].clone();
    flat["kv_transfer_params"]["remote_block_ids"] = blocks;
    let (status, answer) = post(&decode, PATH, &flat).await;
    assert_eq!(status, 200, "{answer}");
    let mut incomplete = fresh.clone();
    incomplete["kv_transfer_params"]["remote_host"] = json!(null);
    let (status, answer) = post(&decode, PATH, &incomplete).await;
    assert!(
        status == 400 && answer.to_string().contains("remote_host"),
        "{answer}"
    );
}

#[tokio::test]
async fn blocks_that_nobody_asks_for_are_free_after_their_lease() {
    let prefill = engine(|args| args.transfer.kv_transfer_config = Some(config("fail", 0.05))).await;
    let decode = engine(|_| {}).await;
    let leg = prefilled(&prefill, &request(&words(5))).await;
    wait_for_metric(&prefill, "vllm:nixl_num_kv_expired_reqs_total", 1.0).await;
    wait_for_metric(&prefill, USAGE, 0.0).await;
    let (status, answer) = post(&decode, PATH, &leg).await;
    assert!(
        status == 500 && answer.to_string().contains("unknown or expired"),
        "{answer}"
    );
}

/// A prompt that was computed is not lost with its engine: who decodes it comes a moment later.
#[tokio::test]
async fn an_engine_that_ends_keeps_blocks_until_they_are_read() {
    let mut prefill = engine(|_| {}).await;
    let decode = engine(|args| args.transfer.kv_transfer_config = Some(config("fail", 30.0))).await;
    let leg = prefilled(&prefill, &request(&words(5))).await;
    let (began, began_to_end) = tokio::sync::oneshot::channel();
    let stopped = tokio::spawn(async move {
        let ended = prefill.stop();
        tokio::pin!(ended);
        // Once it waits, it has stopped to listen and looks at what it holds.
        let first = tokio::time::timeout(Duration::from_millis(50), &mut ended).await;
        assert!(first.is_err(), "it ended with blocks that nobody had read");
        let _ = began.send(());
        ended.await;
    });
    began_to_end.await.expect("it is on its way");
    assert_eq!(post(&decode, PATH, &leg).await.0, 200);
    tokio::time::timeout(Duration::from_secs(10), stopped)
        .await
        .expect("it ends with the last block")
        .expect("no panic");
}

#[tokio::test]
async fn a_reader_keeps_blocks_beyond_the_lease() {
    let prefill = engine(|args| args.transfer.kv_transfer_config = Some(config("fail", 0.2))).await;
    let decode =
        engine(|args| args.transfer.kv_cache_transfer_latency = Some(Duration::from_millis(700))).await;
    let leg = prefilled(&prefill, &request(&words(5))).await;
    assert_eq!(post(&decode, PATH, &leg).await.0, 200);
    wait_for_metric(&decode, "vllm:nixl_xfer_time_seconds_count", 1.0).await;
    wait_for_metric(&prefill, "vllm:nixl_num_kv_expired_reqs_total", 0.0).await;
}

#[tokio::test]
async fn a_client_that_leaves_either_leg_frees_the_blocks() {
    let prefill = engine(|_| {}).await;
    let decode =
        engine(|args| args.transfer.kv_cache_transfer_latency = Some(Duration::from_secs(3600))).await;
    let leg = prefilled(&prefill, &request(&words(5))).await;
    let address = decode.address();
    let waiting = tokio::spawn(async move { send(address, Method::POST, PATH, &leg.to_string()).await });
    wait_for_metric(&decode, "vllm:num_requests_running", 1.0).await;
    waiting.abort();
    wait_for_metric(&decode, USAGE, 0.0).await;
    wait_for_metric(&prefill, USAGE, 0.0).await;
    wait_for_metric(&prefill, "vllm:nixl_num_kv_expired_reqs_total", 0.0).await;

    let slow = engine(|args| args.time_to_first_token = Some(Duration::from_secs(3600))).await;
    let (address, body) = (slow.address(), prefill_of(&request(&words(5))).to_string());
    let waiting = tokio::spawn(async move { send(address, Method::POST, PATH, &body).await });
    wait_for_metric(&slow, "vllm:num_requests_running", 1.0).await;
    waiting.abort();
    wait_for_metric(&slow, USAGE, 0.0).await;
}

#[tokio::test]
async fn a_transfer_that_breaks_fails_the_request_or_is_recomputed_as_configured() {
    let alone = start(|_| {}).await;
    let body = request(&words(12));
    let (_, whole) = post(&alone, PATH, &body).await;
    for (policy, expected) in [("fail", 500), ("recompute", 200)] {
        let prefill = engine(|_| {}).await;
        let decode = engine(|args| {
            args.transfer.kv_transfer_config = Some(config(policy, 30.0));
            args.failure_injection_rate = 100;
            args.failure_types = vec![FailureKind::KvTransfer];
        })
        .await;
        let leg = prefilled(&prefill, &body).await;
        let (status, answer) = post(&decode, PATH, &leg).await;
        assert_eq!(status, expected, "{answer}");
        if status == 200 {
            assert_eq!(answer["choices"], whole["choices"]);
            assert_eq!(answer["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
        }
        wait_for_metric(&decode, "vllm:nixl_num_failed_transfers_total", 1.0).await;
        wait_for_metric(&prefill, USAGE, 0.0).await;
    }
}

#[tokio::test]
async fn engines_of_different_revisions_or_layouts_do_not_pair() {
    let revised =
        |revision: &'static str| engine(move |args| args.transfer.engine_revision = Some(revision.into()));
    let (one, same, other) = (revised("r1").await, revised("r1").await, revised("r2").await);
    let leg = prefilled(&one, &request(&words(5))).await;
    let (status, answer) = post(&other, PATH, &leg).await;
    assert!(
        status == 500
            && answer
                .to_string()
                .contains("revisions differ: r1 prefilled, r2 decodes"),
        "{answer}"
    );
    wait_for_metric(&other, "llmd_sim_revision_mismatches_total", 1.0).await;
    assert_eq!(
        post(&same, PATH, &leg).await.0,
        200,
        "the refusal left the blocks where they were"
    );
    wait_for_metric(&same, "llmd_sim_revision_mismatches_total", 0.0).await;

    let coarse = engine(|args| args.block_size = 32).await;
    let leg = prefilled(&one, &request(&words(5))).await;
    let (_, answer) = post(&coarse, PATH, &leg).await;
    assert!(
        answer.to_string().contains("16 tokens per block there, 32 here"),
        "{answer}"
    );
}

#[tokio::test]
async fn legs_that_an_engine_is_not_for_are_refused() {
    let plain = start(|_| {}).await;
    let role = |role: &str| json!({"kv_connector": "NixlConnector", "kv_role": role}).to_string();
    let consumer = engine(|args| args.transfer.kv_transfer_config = Some(role("kv_consumer"))).await;
    let producer = engine(|args| args.transfer.kv_transfer_config = Some(role("kv_producer"))).await;
    let prefill = prefill_of(&request("a"));
    let mut decode = request("a");
    decode["kv_transfer_params"] = json!({"do_remote_prefill": true});
    for (engine, body, expected) in [
        (&plain, &prefill, "--kv-transfer-config"),
        (&consumer, &prefill, "kv_consumer"),
        (&producer, &decode, "kv_producer"),
    ] {
        let (status, answer) = post(engine, PATH, body).await;
        assert!(
            status == 400 && answer.to_string().contains(expected),
            "{expected}: {answer}"
        );
    }
    let (_, page) = get(&plain, "/metrics").await;
    assert!(
        !page.contains("vllm:nixl_"),
        "a family of a connector that is not there"
    );
    let body = request("a").to_string();
    let unasked = send(plain.address(), Method::POST, PATH, &body).await.unwrap();
    assert!(!text(unasked).await.contains("kv_transfer_params"));
}

fn offloading(port: u16) -> String {
    json!({"kv_connector": "OffloadingConnector", "kv_role": "kv_both",
        "kv_connector_extra_config": {"secondary_tiers": [{"type": "p2p", "host": "127.0.0.1", "port": port}]}})
    .to_string()
}

#[tokio::test]
async fn a_decode_over_the_offloading_connector_waits_for_the_prefill_that_began_with_it() {
    // Both legs name the port before they begin: it cannot be 0.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let prefill = engine(|args| {
        args.transfer.kv_transfer_config = Some(offloading(port));
        args.time_to_first_token = Some(Duration::from_millis(200));
    })
    .await;
    let decode = engine(|args| args.transfer.kv_transfer_config = Some(offloading(0))).await;
    let alone = start(|_| {}).await;
    let body = request(&words(20));
    let (mut first, mut second) = (body.clone(), body.clone());
    first["max_tokens"] = json!(1);
    first["kv_transfer_params"] = json!({"remote_decoder": {"kv_request_id": "r1"}});
    second["kv_transfer_params"] =
        json!({"remote_prefiller": {"kv_request_id": "r1", "remote_host": "127.0.0.1", "remote_port": port}});
    let (prefilled, decoded) = tokio::join!(post(&prefill, PATH, &first), post(&decode, PATH, &second));
    let (_, whole) = post(&alone, PATH, &body).await;
    assert_eq!(prefilled.1.get("kv_transfer_params"), None);
    assert_eq!((decoded.0, &decoded.1["choices"]), (200, &whole["choices"]));
    let prompt = decoded.1["usage"]["prompt_tokens"].as_u64().unwrap();
    assert_eq!(
        decoded.1["usage"]["prompt_tokens_details"]["cached_tokens"],
        prompt - 1
    );
    wait_for_metric(&prefill, USAGE, 0.0).await;
    let (status, answer) = post(&decode, PATH, &prefill_of(&body)).await;
    assert!(
        status == 400 && answer.to_string().contains("members of NixlConnector"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_crowd_of_pairs_leaves_nothing_behind() {
    let (prefill, decode) = (engine(|_| {}).await, engine(|_| {}).await);
    let mut pairs = tokio::task::JoinSet::new();
    let addresses = (prefill.address(), decode.address());
    for number in 0..200_usize {
        pairs.spawn(async move {
            let body = request(&format!("{number} {}", words(1 + number % 20)));
            let leg = prefill_of(&body).to_string();
            let answer = send(addresses.0, Method::POST, PATH, &leg).await.unwrap();
            let answer: Value = serde_json::from_str(&text(answer).await).unwrap();
            let mut leg = body;
            leg["kv_transfer_params"] = answer["kv_transfer_params"].clone();
            leg["stream"] = json!(true);
            let response = send(addresses.1, Method::POST, PATH, &leg.to_string())
                .await
                .unwrap();
            assert_eq!(response.status(), 200);
            if number % 5 > 0 {
                assert!(text(response).await.ends_with("data: [DONE]\n\n"));
            }
        });
    }
    while let Some(pair) = pairs.join_next().await {
        pair.unwrap();
    }
    for engine in [&prefill, &decode] {
        wait_for_metric(engine, "vllm:num_requests_running", 0.0).await;
        wait_for_metric(engine, USAGE, 0.0).await;
        wait_for_metric(engine, "vllm:nixl_num_kv_expired_reqs_total", 0.0).await;
    }
    wait_for_metric(&decode, "vllm:nixl_num_failed_transfers_total", 0.0).await;
}
