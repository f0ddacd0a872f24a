//! The rendered `encode-disaggregation` against llm-d's guide `multimodal-serving/e-disaggregation` (E/PD, v0.8).

use serde_json::{Value, json};

use crate::compared::{Row, both_ways};
use crate::guide_rows::{self, ACCOUNT, ENGINE, SIDECAR, quantities};
use crate::support::{object, rendered};

fn ours(role: &str) -> Value {
    let deployed = rendered(
        "{path: encode-disaggregation, pathVersion: v1, model: {uri: 'hf://Qwen/Qwen3-VL-32B-Instruct'}}",
    );
    let name = format!("x-{role}");
    object(&deployed, "Deployment", &name)["spec"].clone()
}

const OWN: &[Row] = &[
    ACCOUNT,
    Row::changed(
        "/containers/0/image",
        "\"docker.io/vllm/vllm-openai:v0.23.0\"",
        "the guide's own build of vLLM has been merged since",
    ),
    Row::added(
        "/containers/0/env/VLLM_HTTP_TIMEOUT_KEEP_ALIVE",
        "above the 90 s for which sidecars keep connections",
    ),
];

#[test]
fn an_encode_engine_is_the_guides() {
    let ours = ours("encode");
    assert_eq!(ours["replicas"], 2);
    let container = json!({
        "image": "ghcr.io/revit13/vllm-openai:14d40dc7d",
        "command": ["vllm", "serve"],
        "args": {
            "Qwen/Qwen3-VL-32B-Instruct": "", "--tensor-parallel-size": "2", "--mm-encoder-only": "",
            "--enforce-eager": "", "--no-enable-prefix-caching": "", "--trust-remote-code": "",
            "--disable-access-log-for-endpoints": "/health,/metrics,/v1/models",
            "--ec-transfer-config": r#"{"ec_connector":"ECCPUConnector","ec_role":"ec_producer","ec_connector_extra_config":{"num_ec_blocks":1000000}}"#,
        },
        "env": {
            "VLLM_EC_SIDE_CHANNEL_HOST": {"fieldRef": {"fieldPath": "status.podIP"}},
            "VLLM_EC_SIDE_CHANNEL_PORT": "5610",
        },
        "ports": {"modelserver": 8000, "ec-nixl": 5610},
        "resources": {"limits": quantities("8", "128Gi", 2), "requests": quantities("8", "128Gi", 2)},
    });
    let guide = guide_rows::pod(container, "90Gi");
    let rows = [
        ENGINE,
        OWN,
        &[Row::removed(
            "/containers/0/args/--trust-remote-code",
            "code of a model runs only where model.trustRemoteCode says so",
        )],
    ]
    .concat();
    both_ways(&guide, &ours["template"]["spec"], &rows);
}

#[test]
fn a_decode_engine_is_the_guides() {
    let ours = ours("decode");
    assert_eq!(ours["replicas"], 8);
    let container = json!({
        "image": "ghcr.io/revit13/vllm-openai:14d40dc7d",
        "command": ["vllm", "serve"],
        "args": {
            "Qwen/Qwen3-VL-32B-Instruct": "", "--port": "8200", "--tensor-parallel-size": "2",
            "--disable-access-log-for-endpoints": "/health,/metrics,/v1/models",
            "--ec-transfer-config": r#"{"ec_connector":"ECCPUConnector","ec_role":"ec_consumer"}"#,
        },
        "env": {},
        "ports": {"modelserver": 8200},
        "resources": {"limits": quantities("16", "256Gi", 2), "requests": quantities("8", "128Gi", 2)},
    });
    let mut guide = guide_rows::pod(container, "20Gi");
    guide["initContainers"] = guide_rows::sidecar("nixlv2");
    guide["initContainers"][0]["args"]["--ec-connector"] = "ec-nixl".into();
    let engine = guide_rows::without(ENGINE, &["/containers/0/args/--port"]);
    both_ways(
        &guide,
        &ours["template"]["spec"],
        &[&engine, SIDECAR, OWN].concat(),
    );
}
