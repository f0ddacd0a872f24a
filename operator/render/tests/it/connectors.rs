//! What engines are told about KV blocks and encodings, against the tables of llm-d's guides `tiered-prefix-cache`,
//! `agentic-serving` and `e-disaggregation` (v0.8).

use serde_json::{Value, json};

use crate::support::{object, rendered};

struct Engine(Value);

impl Engine {
    fn of(spec: &str, pool: &str) -> Self {
        Self(object(&rendered(spec), "Deployment", &format!("x-{pool}"))["spec"]["template"]["spec"].clone())
    }

    fn config(&self, flag: &str) -> Value {
        let args = self.0["containers"][0]["args"].as_array().unwrap();
        let prefix = format!("--{flag}=");
        let text = args
            .iter()
            .filter_map(Value::as_str)
            .find_map(|arg| arg.strip_prefix(&prefix));
        text.map_or(Value::Null, |text| serde_json::from_str(text).unwrap())
    }

    fn env(&self, name: &str) -> Value {
        let env = self.0["containers"][0]["env"].as_array().unwrap();
        env.iter()
            .find(|one| one["name"] == name)
            .map_or(Value::Null, |one| one["value"].clone())
    }

    fn shared_memory(&self) -> &Value {
        let volumes = self.0["volumes"].as_array().unwrap();
        &volumes.iter().find(|volume| volume["name"] == "shm").unwrap()["emptyDir"]["sizeLimit"]
    }

    fn sidecar(&self) -> Vec<&str> {
        let args = self.0["initContainers"][0]["args"].as_array();
        args.into_iter().flatten().filter_map(Value::as_str).collect()
    }
}

const TIERED: &str = "path: tiered-prefix-cache, pathVersion: v1, model: {uri: 'hf://Qwen/Qwen3-32B'}";

#[test]
fn native_offload_is_the_guides() {
    let engine = Engine::of(&format!("{{{TIERED}}}"), "decode");
    let expected = json!({
        "kv_connector": "OffloadingConnector", "kv_role": "kv_both",
        "kv_connector_extra_config": {"cpu_bytes_to_use": 107_374_182_400_i64},
    });
    assert_eq!(engine.config("kv-transfer-config"), expected);
    assert_eq!(engine.shared_memory(), "20Gi");
    let resources = &engine.0["containers"][0]["resources"];
    assert_eq!(
        (&resources["limits"]["memory"], &resources["requests"]["memory"]),
        (&json!("400Gi"), &json!("200Gi"))
    );
    let files = Engine::of(
        &format!("{{{TIERED}, kv: {{offload: {{filesystem: {{claimName: c}}}}}}}}"),
        "decode",
    );
    assert_eq!(
        files.config("kv-transfer-config")["kv_connector_extra_config"],
        json!({
            "spec_name": "TieringOffloadingSpec", "cpu_bytes_to_use": 107_374_182_400_i64, "block_size": 256,
            "secondary_tiers": [
                {"type": "fs", "root_dir": "/mnt/files-storage", "n_read_threads": 16, "n_write_threads": 16},
            ],
        })
    );
    assert_eq!(files.env("PYTHONHASHSEED"), "42");
    assert_eq!(
        files.shared_memory(),
        "120Gi",
        "more than the 100Gi that are mapped there"
    );
}

/// A file is a whole number of the engine's own blocks.
#[test]
fn files_hold_whole_blocks() {
    for (block, file) in [(16, 256), (64, 256), (96, 288), (512, 512)] {
        let spec =
            format!("{{{TIERED}, kv: {{blockSize: {block}, offload: {{filesystem: {{claimName: c}}}}}}}}");
        let config = Engine::of(&spec, "decode").config("kv-transfer-config");
        assert_eq!(config["kv_connector_extra_config"]["block_size"], file, "{block}");
    }
}

#[test]
fn lmcache_is_the_guides() {
    let spec = format!(
        "{{{TIERED}, kv: {{offload: {{connector: LMCache, filesystem: {{claimName: c, size: 1120Gi}}}}}}}}"
    );
    let engine = Engine::of(&spec, "decode");
    assert_eq!(
        engine.config("kv-transfer-config"),
        json!({"kv_connector": "LMCacheConnectorV1", "kv_role": "kv_both"})
    );
    for (name, value) in [
        ("LMCACHE_MAX_LOCAL_CPU_SIZE", "100.0"),
        ("LMCACHE_LOCAL_DISK", "file:///mnt/files-storage/kv-cache/"),
        ("LMCACHE_MAX_LOCAL_DISK_SIZE", "1120.0"),
        ("LMCACHE_EXTRA_CONFIG", r#"{"use_odirect":"True"}"#),
        ("PROMETHEUS_MULTIPROC_DIR", "/tmp/lmcache_prometheus"),
    ] {
        assert_eq!(engine.env(name), value, "{name}");
    }
}

/// Prefill and decode engines that also offload have two connectors in one.
#[test]
fn transfer_and_offload_are_joined() {
    let spec = "{path: prefill-decode, pathVersion: v1, model: {uri: 'hf://a/b'}, kv: {offload: {cpu: 8Gi}}}";
    let config = Engine::of(spec, "prefill").config("kv-transfer-config");
    assert_eq!(config, Engine::of(spec, "decode").config("kv-transfer-config"));
    assert_eq!(
        (&config["kv_connector"], &config["kv_load_failure_policy"]),
        (&json!("MultiConnector"), &json!("recompute"))
    );
    let names: Vec<&Value> = config["kv_connector_extra_config"]["connectors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|connector| &connector["kv_connector"])
        .collect();
    assert_eq!(names, ["NixlConnector", "OffloadingConnector"]);
}

const ENCODE: &str =
    "path: encode-disaggregation, pathVersion: v1, model: {uri: 'hf://Qwen/Qwen3-VL-32B-Instruct'}";

#[test]
fn encode_and_decode_are_the_guides() {
    let spec = format!("{{{ENCODE}}}");
    let (encode, decode) = (Engine::of(&spec, "encode"), Engine::of(&spec, "decode"));
    assert_eq!(
        encode.config("ec-transfer-config"),
        json!({
            "ec_connector": "ECCPUConnector", "ec_role": "ec_producer",
            "ec_connector_extra_config": {"num_ec_blocks": 1_000_000},
        })
    );
    let args = encode.0["containers"][0]["args"].to_string();
    for flag in [
        "--mm-encoder-only",
        "--enforce-eager",
        "--no-enable-prefix-caching",
        "--tensor-parallel-size=2",
    ] {
        assert!(args.contains(flag), "{flag}: {args}");
    }
    assert_eq!(encode.env("VLLM_EC_SIDE_CHANNEL_PORT"), "5610");
    assert_eq!(encode.shared_memory(), "90Gi");
    assert_eq!(
        (encode.sidecar().len(), encode.config("kv-transfer-config")),
        (0, Value::Null)
    );
    let consumer = json!({"ec_connector": "ECCPUConnector", "ec_role": "ec_consumer"});
    assert_eq!(decode.config("ec-transfer-config"), consumer);
    assert!(decode.sidecar().contains(&"--ec-connector=ec-nixl"));
    assert_eq!(
        decode.config("kv-transfer-config"),
        Value::Null,
        "its own prompts stay"
    );
}

/// E/P/D: the prefill engines take the encodings, and the decode engines their blocks.
#[test]
fn a_prefill_pool_beside_encode_engines_takes_the_encodings() {
    let spec = format!(
        "{{{ENCODE}, pools: [{{name: prefill, role: Prefill, replicas: 3, parallelism: {{tensor: 2}}}}]}}"
    );
    let (prefill, decode) = (Engine::of(&spec, "prefill"), Engine::of(&spec, "decode"));
    assert_eq!(prefill.config("ec-transfer-config")["ec_role"], "ec_consumer");
    assert_eq!(prefill.shared_memory(), "90Gi");
    assert_eq!(
        prefill.config("kv-transfer-config")["kv_connector"],
        "NixlConnector"
    );
    assert_eq!(decode.config("ec-transfer-config"), Value::Null);
    assert!(decode.sidecar().contains(&"--ec-connector=ec-nixl"));
}
