//! Prefill and decode from the client to the engines: picker with its proxy, routing sidecar, two simulators.

use std::net::SocketAddr;
use std::time::Duration;

use llmd_e2e::http;
use llmd_e2e::poll::{DEADLINE, free_port, poll_until_async};
use llmd_e2e::process::Process;
use llmd_sim::{SimArgs, Simulator};
use serde_json::{Value, json};

/// Profiles of the path prefill-decode, with its labels on a file of endpoints.
const CONFIG: &str = r"
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
  - {type: file-discovery, parameters: {path: ENDPOINTS, watchFile: true}}
  - type: disagg-headers-handler
  - type: always-disagg-pd-decider
  - {type: disagg-profile-handler, parameters: {deciders: {prefill: always-disagg-pd-decider}}}
  - type: prefill-filter
  - type: decode-filter
  - type: queue-scorer
dataLayer:
  discovery: {pluginRef: file-discovery}
schedulingProfiles:
  - {name: prefill, plugins: [{pluginRef: prefill-filter}, {pluginRef: queue-scorer, weight: 2}]}
  - {name: decode, plugins: [{pluginRef: decode-filter}, {pluginRef: queue-scorer, weight: 2}]}
";

async fn engine(connected: bool) -> Simulator {
    let mut args = SimArgs::for_model("m");
    args.time_to_first_token = Some(Duration::from_millis(1));
    args.inter_token_latency = Some(Duration::from_millis(1));
    if connected {
        args.transfer.kv_transfer_config =
            Some(r#"{"kv_connector":"NixlConnector","kv_role":"kv_both"}"#.into());
        args.transfer.nixl_side_channel_host = "127.0.0.1".into();
        args.transfer.nixl_side_channel_port = 0;
    }
    Simulator::start(args.config().unwrap()).await.unwrap()
}

/// A pair of engines behind everything that stands before them on a cluster.
struct Stack {
    prefill: Simulator,
    decode: Simulator,
    clients: SocketAddr,
    _sidecar: Process,
    _picker: Process,
    _files: tempfile::TempDir,
}

impl Stack {
    async fn start() -> Self {
        let (prefill, decode) = (engine(true).await, engine(true).await);
        let sidecar_port = free_port();
        let sidecar = Process::llmd([
            "sidecar".to_owned(),
            format!("--port={sidecar_port}"),
            format!("--model-server-port={}", decode.address().port()),
            "--kv-connector=nixlv2".to_owned(),
            "--secure-serving=false".to_owned(),
        ]);
        let files = tempfile::tempdir().unwrap();
        let endpoints = files.path().join("endpoints.yaml");
        let entries = json!({"endpoints": [
            {"name": "prefill-0", "address": "127.0.0.1", "port": prefill.address().port().to_string(),
             "labels": {"llm-d.ai/role": "prefill"}},
            {"name": "decode-0", "address": "127.0.0.1", "port": sidecar_port.to_string(),
             "labels": {"llm-d.ai/role": "decode"}},
        ]});
        std::fs::write(&endpoints, entries.to_string()).unwrap();
        let config = files.path().join("config.yaml");
        std::fs::write(
            &config,
            CONFIG.replace("ENDPOINTS", &endpoints.display().to_string()),
        )
        .unwrap();
        let clients = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let picker = Process::llmd([
            "epp".to_owned(),
            format!("--config-file={}", config.display()),
            format!("--grpc-port={}", free_port()),
            format!("--grpc-health-port={}", free_port()),
            format!("--metrics-port={}", free_port()),
            format!("--proxy-port={}", clients.port()),
            "--proxy-bind-address=127.0.0.1".to_owned(),
            "--secure-serving=false".to_owned(),
        ]);
        let stack = Self {
            prefill,
            decode,
            clients,
            _sidecar: sidecar,
            _picker: picker,
            _files: files,
        };
        let warm = json!({"model": "m", "prompt": "warm", "max_tokens": 2, "ignore_eos": true});
        poll_until_async("an answer through picker and sidecar", DEADLINE, || async {
            let answer = post(stack.clients, "/v1/completions", &warm).await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
        stack
    }
}

async fn post(address: SocketAddr, path: &str, body: &Value) -> anyhow::Result<http::Answer> {
    http::post(address, path, body.to_string(), &[]).await
}

async fn metric(engine: &Simulator, series: &str) -> f64 {
    let page = http::get(engine.address(), "/metrics").await.unwrap().text();
    let line = page.lines().find(|line| line.starts_with(series)).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// The answer's text, joined where it was streamed.
fn words(answer: &http::Answer) -> String {
    let text = answer.text();
    assert_eq!(answer.status, 200, "{text}");
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    let events = text
        .split("\n\n")
        .filter_map(|event| event.strip_prefix("data: {"));
    events
        .map(|event| {
            let event: Value = serde_json::from_str(&format!("{{{event}")).unwrap();
            event["choices"][0]["delta"]["content"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        })
        .collect()
}

#[tokio::test]
async fn a_disaggregated_stream_is_the_aggregated_one_and_each_prompt_is_computed_once() {
    let (stack, alone) = (Stack::start().await, engine(false).await);
    let hits = "vllm:external_prefix_cache_hits_total";
    let before = metric(&stack.decode, hits).await;
    let prefills = metric(&stack.prefill, "vllm:prompt_tokens_total").await;
    let mut tokens = 0.0;
    for number in 0..20 {
        let body = json!({"model": "m", "stream": true, "max_tokens": 12, "stream_options": {"include_usage": true},
            "messages": [{"role": "user", "content": format!("{number} tells of {}", "many a thing and ".repeat(number))}]});
        let disaggregated = words(&post(stack.clients, "/v1/chat/completions", &body).await.unwrap());
        let aggregated = words(
            &post(alone.address(), "/v1/chat/completions", &body)
                .await
                .unwrap(),
        );
        assert_eq!(disaggregated, aggregated, "prompt {number}");
        assert!(!aggregated.is_empty());
        tokens = metric(&alone, "vllm:prompt_tokens_total").await;
    }
    let computed = metric(&stack.prefill, "vllm:prompt_tokens_total").await - prefills;
    assert!(
        (computed - tokens).abs() < 0.5,
        "{computed} of {tokens} prompt tokens were prefilled remotely"
    );
    assert!(metric(&stack.decode, hits).await > before, "no blocks moved");
    poll_until_async("blocks of read prompts to be free", DEADLINE, || async {
        let held = metric(&stack.prefill, "vllm:kv_cache_usage_perc").await;
        (held == 0.0).then_some(())
    })
    .await;
    let failed = metric(&stack.decode, "vllm:nixl_num_failed_transfers_total").await;
    assert!(failed < 0.5, "{failed} transfers failed");
}
