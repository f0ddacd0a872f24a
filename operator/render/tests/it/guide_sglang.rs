//! Rendered SGLang engines against llm-d's guides `pd-disaggregation` and `tiered-prefix-cache` (NVIDIA, SGLang, v0.8).

use serde_json::{Value, json};

use crate::compared::{Row, both_ways};
use crate::guide_rows::{self, ACCOUNT, ENGINE, SIDECAR, quantities};
use crate::support::{object, rendered};

const OWN: &[Row] = &[
    ACCOUNT,
    Row::changed(
        "/containers/0/image",
        "\"docker.io/lmsysorg/sglang:v0.5.13.post1\"",
        "the guides' image without the tag that each of them patches in",
    ),
];

/// What only the two roles have.
const ROLES: &[Row] = &[
    Row::added(
        "/containers/0/env/SGLANG_TIMEOUT_KEEP_ALIVE",
        "above the 90 s for which sidecars keep connections",
    ),
    Row::changed(
        "/volumes/shm/sizeLimit",
        "\"20Gi\"",
        "the size of every other path; 16Gi in this variant alone",
    ),
    Row::added(
        "/containers/0/args/--page-size",
        "kv.blockSize of the path, for engines of all types",
    ),
];

fn pod(args: &Value, ports: &Value, resources: &Value, shared_memory: &str) -> Value {
    let container = json!({
        "image": "lmsysorg/sglang",
        "command": ["python3", "-m", "sglang.launch_server"],
        "args": args,
        "env": {},
        "ports": ports,
        "resources": resources,
    });
    guide_rows::pod(container, shared_memory)
}

/// `--served-model-name` and `--port` stand in the guide's SGLang pods, unlike in its vLLM ones.
fn engine() -> Vec<Row> {
    guide_rows::without(
        ENGINE,
        &[
            "/containers/0/args/--port",
            "/containers/0/args/--shutdown-timeout",
        ],
    )
}

#[test]
fn prefill_and_decode_are_the_guides() {
    let deployed = rendered(
        "{path: prefill-decode, pathVersion: v1, model: {uri: 'hf://openai/gpt-oss-120b'}, engine: {type: Sglang}, \
         rollout: {strategy: RollingUpdate}}",
    );
    for (role, replicas, gpus, cpu, memory, port) in [
        ("prefill", 8, 1, "8", "16Gi", 8000),
        ("decode", 2, 4, "16", "64Gi", 8200),
    ] {
        let ours = object(&deployed, "Deployment", &format!("x-{role}"));
        assert_eq!(ours["spec"]["replicas"], replicas, "{role}");
        let mut args = json!({
            "--model-path": "openai/gpt-oss-120b", "--host": "0.0.0.0", "--port": port.to_string(), "--enable-metrics": "",
            "--tensor-parallel-size": gpus.to_string(), "--disaggregation-mode": role,
            "--disaggregation-transfer-backend": "nixl",
        });
        let mut ports = json!({"modelserver": port});
        if role == "prefill" {
            args["--disaggregation-bootstrap-port"] = "8998".into();
            ports["bootstrap"] = 8998.into();
        }
        let resources =
            json!({"limits": quantities(cpu, memory, gpus), "requests": quantities(cpu, memory, gpus)});
        let mut guide = pod(&args, &ports, &resources, "16Gi");
        let mut rows = [&engine(), OWN, ROLES].concat();
        if role == "decode" {
            guide["initContainers"] = guide_rows::sidecar("sglang");
            rows.extend(SIDECAR);
        }
        both_ways(&guide, &ours["spec"]["template"]["spec"], &rows);
    }
}

#[test]
fn the_cache_in_memory_is_the_guides() {
    let deployed = rendered(
        "{path: tiered-prefix-cache, pathVersion: v1, model: {uri: 'hf://Qwen/Qwen3-32B'}, kv: {blockSize: 64, offload: \
         {cpu: 400G}}, engine: {type: Sglang, args: {mem-fraction-static: '0.9'}}, pools: [{name: decode, replicas: 8, \
         resources: {limits: {memory: 400Gi}}}]}",
    );
    let ours = object(&deployed, "Deployment", "x-decode");
    assert_eq!(ours["spec"]["replicas"], 8);
    let args = json!({
        "--model-path": "Qwen/Qwen3-32B", "--host": "0.0.0.0", "--port": "8000", "--enable-metrics": "",
        "--tensor-parallel-size": "2", "--enable-hierarchical-cache": "", "--hicache-write-policy": "write_through",
        "--hicache-io-backend": "kernel", "--hicache-size": "200", "--page-size": "64", "--mem-fraction-static": "0.9",
    });
    let resources = json!({"limits": quantities("16", "400Gi", 2), "requests": quantities("8", "200Gi", 2)});
    let guide = pod(&args, &json!({"modelserver": 8000}), &resources, "20Gi");
    both_ways(
        &guide,
        &ours["spec"]["template"]["spec"],
        &[&engine(), OWN].concat(),
    );
}

/// Flags of vLLM would end SGLang at its start.
#[test]
fn nothing_of_the_paths_vllm_is_left() {
    let deployed = rendered(
        "{path: optimized-baseline, pathVersion: v1, model: {uri: 'hf://a/b'}, pools: [{name: decode, engine: {type: \
         Sglang}}]}",
    );
    let ours = object(&deployed, "Deployment", "x-decode");
    let args = ours["spec"]["template"]["spec"]["containers"][0]["args"].to_string();
    assert!(!args.contains("disable-access-log"), "{args}");
    let label = "llm-d.ai/engine-type";
    assert_eq!(ours["spec"]["template"]["metadata"]["labels"][label], "sglang");
}
