//! The rendered tiers of the KV cache against llm-d's guides `tiered-prefix-cache` (NVIDIA, vLLM, v0.8) and
//! `p2p-kv-cache-sharing` (v0.10).

use serde_json::{Value, json};

use crate::compared::{Row, both_ways};
use crate::guide_rows::{self, ACCOUNT, ENGINE, SIDECAR, quantities};
use crate::support::{object, rendered};

const OWN: &[Row] = &[
    ACCOUNT,
    Row::changed(
        "/containers/0/image",
        "\"docker.io/vllm/vllm-openai:v0.23.0\"",
        "with its registry: clusters that enforce full names refuse short ones",
    ),
];

/// Memory that is mapped from a file outlives the process that mapped it.
const MAPPED: Row = Row::changed(
    "/containers/0/command",
    r#"["/bin/bash","-c","rm -f /dev/shm/vllm_offload_*.mmap; exec vllm serve \"$@\"","vllm"]"#,
    "leftovers of a killed engine go first, as in the guide p2p-kv-cache-sharing",
);

fn engine() -> Vec<Row> {
    ENGINE.to_vec()
}

/// An engine of four with two accelerators, which `offload` changes.
fn pod(config: &str, env: &Value, limits: (&str, &str), requests: (&str, &str)) -> Value {
    let container = json!({
        "image": "vllm/vllm-openai:v0.23.0",
        "command": ["vllm", "serve"],
        "args": {
            "Qwen/Qwen3-32B": "",
            "--disable-access-log-for-endpoints": "/health,/metrics,/v1/models",
            "--tensor-parallel-size": "2",
            "--kv-transfer-config": config,
        },
        "env": env,
        "ports": {"modelserver": 8000},
        "resources": {"limits": quantities(limits.0, limits.1, 2), "requests": quantities(requests.0, requests.1, 2)},
    });
    guide_rows::pod(container, "20Gi")
}

fn ours(kv: &str, pool: &str) -> Value {
    let deployed = rendered(&format!(
        "{{path: tiered-prefix-cache, pathVersion: v1, model: {{uri: 'hf://Qwen/Qwen3-32B'}}, kv: {{offload: {kv}}}, pools: \
         [{{name: decode{pool}}}]}}"
    ));
    object(&deployed, "Deployment", "x-decode")["spec"]["template"]["spec"].clone()
}

#[test]
fn memory_is_the_guides() {
    let config = r#"{"kv_connector":"OffloadingConnector","kv_role":"kv_both","kv_connector_extra_config":{"cpu_bytes_to_use":107374182400}}"#;
    let mut guide = pod(config, &json!({}), ("16", "400Gi"), ("8", "200Gi"));
    guide["enableServiceLinks"] = false.into();
    guide["terminationGracePeriodSeconds"] = 130.into();
    let mut rows = [
        &guide_rows::without(&engine(), &["/terminationGracePeriodSeconds"]),
        OWN,
    ]
    .concat();
    rows.push(Row::removed(
        "/enableServiceLinks",
        "the guide's own patch; variables of Services harm no engine",
    ));
    rows.push(Row::changed(
        "/terminationGracePeriodSeconds",
        "75",
        "preStop + rollout.drain + 15 s; a longer drain is a field",
    ));
    both_ways(&guide, &ours("{}", ""), &rows);
}

#[test]
fn a_file_system_below_is_the_guides() {
    let config = r#"{"kv_connector":"OffloadingConnector","kv_role":"kv_both","kv_connector_extra_config":{"spec_name":"TieringOffloadingSpec","cpu_bytes_to_use":107374182400,"block_size":256,"secondary_tiers":[{"type":"fs","root_dir":"/mnt/files-storage","n_read_threads":16,"n_write_threads":16}]}}"#;
    let mut guide = pod(
        config,
        &json!({"PYTHONHASHSEED": "42"}),
        ("4", "300Gi"),
        ("4", "300Gi"),
    );
    guide["volumes"]["shm"]["sizeLimit"] = "250Gi".into();
    guide["volumes"]["kv-files"] = json!({"claimName": "llm-d-kv-cache-storage"});
    guide["containers"][0]["volumeMounts"]["/mnt/files-storage"] = "kv-files".into();
    guide["securityContext"] = json!({"runAsUser": 0});
    let mut rows = [&engine(), OWN, &[MAPPED]].concat();
    rows.push(Row::changed(
        "/volumes/shm/sizeLimit",
        "\"120Gi\"",
        "kv.offload.cpu and 20Gi for all else: the guide's 250Gi are for its own 200",
    ));
    rows.push(Row::changed(
        "/securityContext/runAsUser",
        "65532",
        "fsGroup makes the claim writable, root does not have to",
    ));
    both_ways(
        &guide,
        &ours(
            "{filesystem: {claimName: llm-d-kv-cache-storage}}",
            ", resources: {limits: {cpu: 4, memory: 300Gi}, requests: {cpu: 4, memory: 300Gi}}",
        ),
        &rows,
    );
}

#[test]
fn lmcache_is_the_guides() {
    let config = r#"{"kv_connector":"LMCacheConnectorV1","kv_role":"kv_both"}"#;
    let env = json!({
        "LMCACHE_MAX_LOCAL_CPU_SIZE": "100.0", "PYTHONHASHSEED": "123",
        "PROMETHEUS_MULTIPROC_DIR": "/tmp/lmcache_prometheus",
    });
    let mut guide = pod(config, &env, ("16", "500Gi"), ("8", "200Gi"));
    guide["containers"][0]["args"]["--max-num-seq"] = "1024".into();
    let mut rows = [&engine(), OWN].concat();
    rows.push(Row::changed(
        "/containers/0/env/PYTHONHASHSEED",
        "\"42\"",
        "one seed for all connectors; any will do, if all engines have it",
    ));
    rows.push(Row::removed(
        "/containers/0/args/--max-num-seq",
        "a limit of the guide's model and accelerators: engine.args",
    ));
    both_ways(
        &guide,
        &ours("{connector: LMCache}", ", resources: {limits: {memory: 500Gi}}"),
        &rows,
    );
}

#[test]
fn a_mooncake_store_is_the_guides() {
    let store = |cpu: &str, protocol: &str| {
        format!(
            "{{connector: Mooncake, {cpu}mooncake: {{master: 'mooncake-master-store.mooncake.svc.cluster.local:50051', protocol: {protocol}}}}}"
        )
    };
    let config = r#"{"kv_connector":"MooncakeStoreConnector","kv_role":"kv_both"}"#;
    let env = json!({"PYTHONHASHSEED": "0", "MOONCAKE_CONFIG_PATH": "/etc/mooncake/mooncake_config.json"});
    let mut guide = pod(config, &env, ("16", "400Gi"), ("8", "200Gi"));
    guide["volumes"]["mooncake"] = json!({"name": "mooncake-store-config"});
    guide["containers"][0]["volumeMounts"]["/etc/mooncake"] = "mooncake".into();
    for kind in ["limits", "requests"] {
        guide["containers"][0]["resources"][kind]["rdma/ib"] = "1".into();
    }
    let mut rows = [&engine(), OWN].concat();
    rows.push(Row::changed(
        "/containers/0/env/PYTHONHASHSEED",
        "\"42\"",
        "one seed for all connectors; any will do, if all engines have it",
    ));
    rows.push(Row::changed(
        "/volumes/mooncake/name",
        "\"x-mooncake\"",
        "children are named after their deployment",
    ));
    both_ways(
        &guide,
        &ours(
            &store("", "Rdma").replace("connector: Mooncake,", "connector: Mooncake, cpu: 80Gi,"),
            ", resources: {limits: {rdma/ib: 1}, requests: {rdma/ib: 1}}",
        ),
        &rows,
    );
    let file = |cpu: &str| -> Value {
        let deployed = rendered(&format!(
            "{{path: optimized-baseline, pathVersion: v1, model: {{uri: 'hf://a/b'}}, kv: {{offload: {}}}}}",
            store(cpu, "Rdma")
        ));
        let map = object(&deployed, "ConfigMap", "x-mooncake");
        serde_json::from_str(map["data"]["mooncake_config.json"].as_str().unwrap()).unwrap()
    };
    let mut wanted = json!({
        "mode": "standalone-store", "metadata_server": "P2PHANDSHAKE",
        "master_server_address": "mooncake-master-store.mooncake.svc.cluster.local:50051", "global_segment_size": 0,
        "local_buffer_size": 4_294_967_296_i64, "protocol": "rdma", "device_name": "", "enable_offload": true,
    });
    assert_eq!(file(""), wanted);
    wanted["mode"] = "embedded".into();
    wanted["global_segment_size"] = 85_899_345_920_i64.into();
    wanted["enable_offload"] = false.into();
    assert_eq!(file("cpu: 80Gi, "), wanted);
}

#[test]
fn memory_of_peers_is_the_guides() {
    let deployed =
        rendered("{path: p2p-kv-cache-sharing, pathVersion: v1, model: {uri: 'hf://openai/gpt-oss-120b'}}");
    let ours = object(&deployed, "Deployment", "x-decode")["spec"]["template"]["spec"].clone();
    let ip = json!({"fieldRef": {"fieldPath": "status.podIP"}});
    let container = json!({
        "image": "vllm/vllm-openai:v0.27.0",
        "command": ["/bin/bash", "-c", "rm -f /dev/shm/vllm_offload_*.mmap; exec vllm serve \"$@\"", "vllm"],
        "args": {
            "openai/gpt-oss-120b": "", "--port": "8200", "--block-size": "64", "--max-model-len": "65536",
            "--gpu-memory-utilization": "0.85", "--tensor-parallel-size": "1",
            "--disable-access-log-for-endpoints": "/health,/metrics,/v1/models",
            "--kv-transfer-config": r#"{"kv_connector":"OffloadingConnector","kv_role":"kv_both","kv_connector_extra_config":{"spec_name":"TieringOffloadingSpec","cpu_bytes_to_use":94489280512,"offload_prompt_only":false,"self_describing_kv_events":true,"secondary_tiers":[{"type":"p2p","host":"$(POD_IP)","port":7777}]}}"#,
            "--kv-events-config": r#"{"enable_kv_cache_events":true,"publisher":"zmq","endpoint":"$(KV_EVENTS_ENDPOINT)","topic":"kv@$(POD_IP):$(POD_PORT)@openai/gpt-oss-120b"}"#,
        },
        "env": {
            "VLLM_P2P_SIDE_CHANNEL_HOST": ip, "VLLM_NIXL_SIDE_CHANNEL_HOST": ip, "PYTHONHASHSEED": "0", "POD_IP": ip,
            "NAMESPACE": {"fieldRef": {"fieldPath": "metadata.namespace"}}, "POD_PORT": "8000",
            "KV_EVENTS_ENDPOINT": "tcp://*:5556", "DO_NOT_TRACK": "1",
        },
        "ports": {"modelserver": 8200, "kv-events": 5556},
        "resources": {"limits": quantities("8", "160Gi", 1), "requests": quantities("8", "160Gi", 1)},
    });
    let mut guide = guide_rows::pod(container, "96Gi");
    guide["initContainers"] = guide_rows::sidecar("offloading");
    let left = [
        "/containers/0/args/--port",
        "/containers/0/env/POD_IP",
        "/containers/0/env/DO_NOT_TRACK",
    ];
    let mut rows = [&guide_rows::without(ENGINE, &left), SIDECAR, OWN].concat();
    let events = "the picker remembers what it sent where; the index of KV events is another picker's";
    for pointer in [
        "/containers/0/args/--kv-events-config",
        "/containers/0/env/KV_EVENTS_ENDPOINT",
        "/containers/0/env/POD_PORT",
        "/containers/0/env/NAMESPACE",
        "/containers/0/ports/kv-events",
    ] {
        rows.push(Row::removed(pointer, events));
    }
    rows.extend([
        Row::removed(
            "/containers/0/env/VLLM_NIXL_SIDE_CHANNEL_HOST",
            "of NixlConnector, which is not there",
        ),
        Row::changed(
            "/containers/0/env/PYTHONHASHSEED",
            "\"42\"",
            "one seed for all connectors; any will do, if all engines have it",
        ),
        Row::added(
            "/containers/0/ports/peers",
            "the port that the NetworkPolicy closes",
        ),
        Row::changed(
            "/volumes/shm/sizeLimit",
            "\"108Gi\"",
            "kv.offload.cpu and 20Gi for all else",
        ),
        Row::added(
            "/initContainers/0/args/--p2p-connector-port",
            "stated on both sides by the same constant",
        ),
    ]);
    both_ways(&guide, &ours, &rows);
    let policy = object(&deployed, "NetworkPolicy", "x-kv");
    let open = policy["spec"]["ingress"][0]["ports"].to_string();
    assert!(open.contains("8000") && !open.contains("7777"), "{open}");
}
