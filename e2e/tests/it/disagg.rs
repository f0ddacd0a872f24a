//! Prefill and decode from the client to the engines: picker with its proxy, routing sidecar, two simulators.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use llmd_e2e::http;
use llmd_e2e::poll::{DEADLINE, free_port, poll_until_async};
use llmd_e2e::process::{Process, llmd_bin};
use llmd_sim::{DisaggregationMode, SimArgs, Simulator};
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

/// How blocks move between the engines of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Connector {
    Nixl,
    Offloading,
    Sglang,
}

fn quick() -> SimArgs {
    let mut args = SimArgs::for_model("m");
    args.time_to_first_token = Some(Duration::from_millis(1));
    args.inter_token_latency = Some(Duration::from_millis(1));
    args
}

/// One side of a pair; `port` is where it gives blocks, if the connector has the other side know it beforehand.
async fn engine(connector: Connector, side: DisaggregationMode, port: u16) -> Simulator {
    let mut args = quick();
    args.transfer.nixl_side_channel_host = "127.0.0.1".into();
    args.transfer.nixl_side_channel_port = 0;
    let json = match connector {
        Connector::Nixl => json!({"kv_connector": "NixlConnector", "kv_role": "kv_both"}),
        Connector::Offloading => {
            let role = match side {
                DisaggregationMode::Prefill => "kv_producer",
                DisaggregationMode::Decode => "kv_consumer",
            };
            json!({"kv_connector": "OffloadingConnector", "kv_role": role,
                "kv_connector_extra_config": {"secondary_tiers": [{"type": "p2p", "port": port}]}})
        }
        Connector::Sglang => {
            args.transfer.disaggregation_mode = Some(side);
            args.transfer.disaggregation_bootstrap_port = port;
            return Simulator::start(args.config().unwrap()).await.unwrap();
        }
    };
    args.transfer.kv_transfer_config = Some(json.to_string());
    Simulator::start(args.config().unwrap()).await.unwrap()
}

/// An engine that does all of a request.
async fn alone() -> Simulator {
    Simulator::start(quick().config().unwrap()).await.unwrap()
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
    async fn start(connector: Connector) -> Self {
        let port = free_port();
        let prefill = engine(connector, DisaggregationMode::Prefill, port).await;
        let decode = engine(connector, DisaggregationMode::Decode, port).await;
        let sidecar_port = free_port();
        let name = match connector {
            Connector::Nixl => "nixlv2",
            Connector::Offloading => "offloading",
            Connector::Sglang => "sglang",
        };
        let mut flags = vec![
            "sidecar".to_owned(),
            format!("--port={sidecar_port}"),
            format!("--model-server-port={}", decode.address().port()),
            format!("--kv-connector={name}"),
            "--secure-serving=false".to_owned(),
        ];
        if connector == Connector::Offloading {
            flags.push(format!("--p2p-connector-port={port}"));
        }
        let room = port.to_string();
        let mut command = Command::new(llmd_bin());
        command.args(flags).env("SGLANG_BOOTSTRAP_PORT", room);
        let sidecar = Process::spawn("sidecar", command);
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
    let (stack, alone) = (Stack::start(Connector::Nixl).await, alone().await);
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

/// The two connectors whose legs run at the same time.
#[tokio::test]
async fn pairs_that_begin_at_once_answer_as_one_engine() {
    let alone = alone().await;
    for connector in [Connector::Offloading, Connector::Sglang] {
        let stack = Stack::start(connector).await;
        let before = metric(&stack.decode, "vllm:prompt_tokens_total").await;
        for number in 0..10 {
            let body = json!({"model": "m", "stream": true, "max_tokens": 12,
                "messages": [{"role": "user", "content": format!("{number} tells of {}", "many a thing and ".repeat(10))}]});
            let paired = words(&post(stack.clients, "/v1/chat/completions", &body).await.unwrap());
            let aggregated = words(
                &post(alone.address(), "/v1/chat/completions", &body)
                    .await
                    .unwrap(),
            );
            assert_eq!(paired, aggregated, "{connector:?}: prompt {number}");
        }
        let hits = metric(&stack.decode, "vllm:external_prefix_cache_hits_total").await;
        assert!(hits > 0.0, "{connector:?}: no blocks moved");
        assert!(
            metric(&stack.decode, "vllm:prompt_tokens_total").await > before,
            "{connector:?}"
        );
        poll_until_async("blocks of read prompts to be free", DEADLINE, || async {
            let held = metric(&stack.prefill, "vllm:kv_cache_usage_perc").await;
            (held == 0.0).then_some(())
        })
        .await;
    }
}

/// Requests that name no room, and decodes whose prefill engine is not there, get no blocks, and are told so.
#[tokio::test]
async fn requests_without_a_room_or_a_prefill_engine_are_refused() {
    let port = free_port();
    let prefill = engine(Connector::Sglang, DisaggregationMode::Prefill, port).await;
    let decode = engine(Connector::Sglang, DisaggregationMode::Decode, port).await;
    let mut body = json!({"model": "m", "prompt": "a", "max_tokens": 2});
    for engine in [&prefill, &decode] {
        let answer = post(engine.address(), "/v1/completions", &body).await.unwrap();
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert!(answer.text().contains("bootstrap_room"), "{}", answer.text());
    }
    body["bootstrap_room"] = 7.into();
    body["bootstrap_port"] = port.into();
    let answer = post(decode.address(), "/v1/completions", &body).await.unwrap();
    assert!(
        answer.status == 400 && answer.text().contains("bootstrap_host"),
        "{}",
        answer.text()
    );
    body["bootstrap_host"] = "127.0.0.1".into();
    body["bootstrap_port"] = free_port().into();
    let answer = post(decode.address(), "/v1/completions", &body).await.unwrap();
    assert!(
        answer.status == 500 && answer.text().contains("cannot be asked"),
        "{}",
        answer.text()
    );
}

/// Frames of a real vLLM: what the simulator answers is what it answered, and what its decode was asked is understood.
#[tokio::test]
async fn simulated_transfers_have_the_members_of_recorded_ones() {
    let recorded: Value =
        serde_json::from_str(include_str!("../../../sidecar/tests/frames/vllm-0.32.json")).unwrap();
    let exchange = &recorded["exchanges"][0];
    let engine = engine(Connector::Nixl, DisaggregationMode::Prefill, 0).await;
    let ask = |leg: &'static str| {
        let mut body = exchange[leg][0]["asked"].clone();
        body["model"] = "m".into();
        let address = engine.address();
        async move { post(address, "/v1/completions", &body).await.unwrap() }
    };
    let answered: Value = serde_json::from_str(exchange["prefill"][0]["answered"].as_str().unwrap()).unwrap();
    let real = answered["kv_transfer_params"].as_object().unwrap();
    let simulated: Value = serde_json::from_str(&ask("prefill").await.text()).unwrap();
    for (member, value) in simulated["kv_transfer_params"].as_object().unwrap() {
        let theirs = real.get(member).unwrap_or_else(|| panic!("vLLM has no {member}"));
        assert_eq!(
            std::mem::discriminant(value),
            std::mem::discriminant(theirs),
            "{member}: {value} and {theirs}"
        );
    }
    // whole, but of an engine that is not there any more
    let decode = ask("decode").await;
    assert!(
        decode.status == 500 && decode.text().contains("cannot be asked"),
        "{}",
        decode.text()
    );
}

/// An engine that does all of a request and gives its blocks to others, behind its sidecar; `host` is its own.
async fn sharing(host: &str, tier: u16) -> (Simulator, Process, u16) {
    let mut args = quick();
    args.transfer.nixl_side_channel_host = host.to_owned();
    args.transfer.kv_transfer_config = Some(
        json!({"kv_connector": "OffloadingConnector", "kv_role": "kv_both",
            "kv_connector_extra_config": {"secondary_tiers": [{"type": "p2p", "port": tier}]}})
        .to_string(),
    );
    let engine = Simulator::start(args.config().unwrap()).await.unwrap();
    let port = free_port();
    let sidecar = Process::llmd([
        "sidecar".to_owned(),
        format!("--port={port}"),
        format!("--model-server-port={}", engine.address().port()),
        "--kv-connector=offloading".to_owned(),
        format!("--p2p-connector-port={tier}"),
        "--secure-serving=false".to_owned(),
    ]);
    let warm = json!({"model": "m", "prompt": "warm", "max_tokens": 2});
    poll_until_async("an answer through the sidecar", DEADLINE, || async {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let answer = post(address, "/v1/completions", &warm).await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await;
    (engine, sidecar, port)
}

/// The picker names the engine that has a prefix; the one that computes reads it from there.
#[tokio::test]
async fn a_prompt_is_read_from_the_memory_of_the_engine_that_has_it() {
    let tier = free_port();
    // One port for the tiers of all engines, as on pods: they differ by their addresses.
    let (_holder, _one, holds) = sharing("127.0.0.1", tier).await;
    let (other, _two, computes) = sharing("127.0.0.2", tier).await;
    let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let body = json!({"model": "m", "max_tokens": 12, "messages": [{"role": "user", "content": "many a thing and ".repeat(40)}]});
    let body = body.to_string();
    let text = |answer: &http::Answer| {
        let answer: Value = serde_json::from_str(&answer.text()).unwrap();
        answer["choices"][0]["message"]["content"].clone()
    };
    let first = http::post(address(holds), "/v1/chat/completions", body.clone(), &[])
        .await
        .unwrap();
    let hits = "vllm:external_prefix_cache_hits_total";
    assert_eq!(
        metric(&other, hits).await.total_cmp(&0.0),
        std::cmp::Ordering::Equal
    );
    let source = format!("127.0.0.1:{holds}");
    let named = [("x-kv-cache-source-host-port", source.as_str())];
    let second = http::post(address(computes), "/v1/chat/completions", body.clone(), &named)
        .await
        .unwrap();
    assert_eq!((second.status, text(&second)), (200, text(&first)));
    let read = metric(&other, hits).await;
    assert!(read >= 32.0, "{read} tokens were read from the other engine");

    // an engine that is not there any more costs nothing but its blocks
    let gone = format!("127.0.0.3:{holds}");
    let other_prompt = body.replace("many a thing", "another thing");
    let named = [("x-kv-cache-source-host-port", gone.as_str())];
    let third = http::post(address(computes), "/v1/chat/completions", other_prompt, &named)
        .await
        .unwrap();
    assert_eq!(third.status, 200, "{}", third.text());
    assert!((metric(&other, hits).await - read).abs() < 0.5);
}
