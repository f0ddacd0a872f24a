//! The rendered `wide-expert-parallel` against llm-d's guide `wide-ep-lws` (NVIDIA, vLLM, v0.8, overlay `coreweave`):
//! every field of both, so that one that neither table explains fails.

use serde_json::{Value, json};

use crate::compared::{Row, both_ways};
use crate::support::{object, rendered};

const MODEL: &str = "deepseek-ai/DeepSeek-R1-0528";

fn deployed() -> llmd_render::Rendered {
    rendered(
        "{path: wide-expert-parallel, pathVersion: v1, model: {uri: 'hf://deepseek-ai/DeepSeek-R1-0528'}, \
         kv: {transfer: {network: {resourceName: rdma/ib}}}}",
    )
}

fn env(decode: bool) -> Value {
    let mut env = json!({
        "DP_SIZE_LOCAL": "8", "TP_SIZE": "1", "TRITON_LIBCUDA_PATH": "/usr/lib64", "VLLM_SKIP_P2P_CHECK": "1",
        "VLLM_RANDOMIZE_DP_DUMMY_INPUTS": "1", "VLLM_USE_DEEP_GEMM": "1", "NVIDIA_GDRCOPY": "enabled",
        "NVSHMEM_REMOTE_TRANSPORT": "ibgda", "NVSHMEM_IB_ENABLE_IBGDA": "true",
        "NVSHMEM_BOOTSTRAP_UID_SOCK_IFNAME": "eth0", "GLOO_SOCKET_IFNAME": "eth0", "NCCL_SOCKET_IFNAME": "eth0",
        "NCCL_IB_HCA": "ibp", "NVSHMEM_HCA_PREFIX": "ibp",
        "VLLM_NIXL_SIDE_CHANNEL_HOST": {"fieldRef": {"fieldPath": "status.podIP"}},
        "CUDA_CACHE_PATH": "/var/cache/vllm/cuda", "CCACHE_DIR": "/var/cache/vllm/ccache",
        "VLLM_CACHE_ROOT": "/var/cache/vllm/vllm", "FLASHINFER_WORKSPACE_BASE": "/var/cache/vllm/flashinfer",
        "HF_HUB_CACHE": "/var/cache/huggingface",
        "HF_TOKEN": {"secretKeyRef": {"name": "llm-d-hf-token", "key": "HF_TOKEN"}},
    });
    if decode {
        env["NVSHMEM_SYMMETRIC_SIZE"] = "16G".into();
    } else {
        env["VLLM_ENGINE_READY_TIMEOUT_S"] = "3000".into();
        env["VLLM_HTTP_TIMEOUT_KEEP_ALIVE"] = "120".into();
    }
    env
}

fn args(decode: bool) -> Value {
    let mut args = json!({
        MODEL: "", "--tensor-parallel-size": "1", "--enable-expert-parallel": "",
        "--data-parallel-multi-port-external-lb": "", "--data-parallel-size": "16", "--data-parallel-size-local": "8",
        "--data-parallel-address": "$(LWS_LEADER_ADDRESS)", "--data-parallel-rpc-port": "5555",
        "--data-parallel-start-rank": "LWS_WORKER_INDEX * 8",
        "--moe-backend": "deep_gemm",
        "--kv-transfer-config": r#"{"kv_connector":"NixlConnector","kv_role":"kv_both","kv_load_failure_policy":"fail"}"#,
    });
    let own = if decode {
        json!({
            "--port": "8200", "--data-parallel-supervisor-port": "8208", "--all2all-backend": "deepep_low_latency",
            "--max-num-batched-tokens": "256", "--max-num-seqs": "256", "--enable-dbo": "",
            "--dbo-decode-token-threshold": "32",
        })
    } else {
        json!({
            "--port": "8000", "--data-parallel-supervisor-port": "8008", "--all2all-backend": "deepep_high_throughput",
            "--max-num-batched-tokens": "2048", "--gpu-memory-utilization": "0.80", "--enforce-eager": "",
        })
    };
    for (flag, value) in own.as_object().unwrap() {
        args[flag] = value.clone();
    }
    args
}

fn ports(decode: bool) -> Value {
    let (prefix, first) = if decode {
        ("vllm-rank", 8200)
    } else {
        ("rank", 8000)
    };
    let mut ports = json!({"supervisor": first + 8, "nixl": 5600});
    for rank in 0..8 {
        ports[format!("{prefix}{rank}")] = (first + rank).into();
    }
    ports
}

fn guide(decode: bool) -> Value {
    let probe = |path: &str, period: i32, failures: i32| json!({"httpGet": {"path": path, "port": "supervisor"}, "periodSeconds": period, "timeoutSeconds": 5, "failureThreshold": failures});
    let resources = json!({"cpu": "32", "memory": "512Gi", "ephemeral-storage": "1Ti", "nvidia.com/gpu": "8", "rdma/ib": "1"});
    let mut limits = resources.clone();
    limits.as_object_mut().unwrap().remove("cpu");
    let mut pod = json!({
        "containers": [{
            "name": "vllm",
            "image": "vllm/vllm-openai:v0.23.0",
            "command": ["/bin/bash", "-c"],
            "args": args(decode),
            "env": env(decode),
            "ports": ports(decode),
            "startupProbe": probe("/health", 1, 2700),
            "livenessProbe": probe("/health", 30, 3),
            "readinessProbe": probe("/readyz", 10, 3),
            "resources": {"requests": resources, "limits": limits},
            "securityContext": {"capabilities": {"add": ["IPC_LOCK", "SYS_RAWIO"]}, "runAsUser": 0, "runAsGroup": 0},
            "volumeMounts": {"/dev/shm": "dshm", "/var/cache/huggingface": "hf-cache", "/var/cache/vllm": "jit-cache"},
        }],
        "serviceAccountName": "deepseek-r1",
        "volumes": {
            "dshm": {"medium": "Memory", "sizeLimit": "2Gi"}, "hf-cache": {"path": "/mnt/local/hf-cache"},
            "jit-cache": {"path": "/mnt/local/jit-cache"},
        },
    });
    if decode {
        let ports: Value = (0..8)
            .map(|rank| (format!("rank{rank}"), json!(8000 + rank)))
            .collect::<serde_json::Map<_, _>>()
            .into();
        pod["initContainers"] = json!([{
            "name": "routing-proxy",
            "image": "ghcr.io/llm-d/llm-d-router-disagg-sidecar",
            "restartPolicy": "Always",
            "args": {
                "--port": "8000", "--data-parallel-size": "8", "--kv-connector": "nixlv2", "--enable-prefiller-sampling": "",
            },
            "ports": ports,
            "securityContext": {"allowPrivilegeEscalation": false, "runAsNonRoot": true},
        }]);
    }
    pod
}

/// What differs in the pods of both roles, and why.
const COMMON: &[Row] = &[
    Row::changed(
        "/containers/0/name",
        "modelserver",
        "one name in all paths: patches and probes know it",
    ),
    Row::changed(
        "/containers/0/image",
        "docker.io/vllm/vllm-openai:v0.23.0",
        "with its registry",
    ),
    Row::changed(
        "/containers/0/command",
        r#"["/bin/bash","-c","rm -rf /dev/shm/*; exec vllm serve \"$@\" --data-parallel-start-rank=\"$((LWS_WORKER_INDEX * 8))\"","vllm"]"#,
        "arguments are not part of the shell's text, so that none is read by it",
    ),
    Row::removed("/containers/0/args/--data-parallel-start-rank", "in the command"),
    Row::added("/containers/0/args/--served-model-name", "aliases"),
    Row::added(
        "/containers/0/args/--shutdown-timeout",
        "requests in flight end before the engine does",
    ),
    Row::added(
        "/containers/0/args/--disable-access-log-for-endpoints",
        "as the other paths have it",
    ),
    Row::added("/containers/0/env/POD_NAME", "names the pod in logs and events"),
    Row::added(
        "/containers/0/env/POD_NAMESPACE",
        "names the pod in logs and events",
    ),
    Row::added("/containers/0/env/POD_IP", "names the pod in logs and events"),
    Row::added("/containers/0/env/DO_NOT_TRACK", "as the other paths have it"),
    Row::added("/containers/0/env/USER", "as the other paths have it"),
    Row::added("/containers/0/env/HOME", "caches of root land in the mounts, too"),
    Row::added(
        "/containers/0/env/VLLM_NIXL_SIDE_CHANNEL_PORT",
        "the port that the NetworkPolicy closes",
    ),
    Row::removed("/containers/0/env/DP_SIZE_LOCAL", "a flag says it"),
    Row::removed("/containers/0/env/TP_SIZE", "a flag says it"),
    Row::removed(
        "/containers/0/env/HF_TOKEN",
        "rendered with model.tokenSecretRef only",
    ),
    Row::removed(
        "/containers/0/env/HF_HUB_CACHE",
        "model.storage.claimName says where downloads are",
    ),
    Row::removed("/containers/0/env/NCCL_IB_HCA", "of one cloud: engine.env"),
    Row::removed("/containers/0/env/NVSHMEM_HCA_PREFIX", "of one cloud: engine.env"),
    Row::changed(
        "/containers/0/env/CUDA_CACHE_PATH",
        "/.cache/cuda",
        "the cache of the other paths",
    ),
    Row::changed(
        "/containers/0/env/CCACHE_DIR",
        "/.cache/ccache",
        "the cache of the other paths",
    ),
    Row::changed(
        "/containers/0/env/VLLM_CACHE_ROOT",
        "/.cache/vllm",
        "the cache of the other paths",
    ),
    Row::changed(
        "/containers/0/env/FLASHINFER_WORKSPACE_BASE",
        "/.cache/flashinfer",
        "the cache of the other paths",
    ),
    Row::added(
        "/containers/0/lifecycle",
        "routers stop sending before the engine stops",
    ),
    Row::added(
        "/containers/0/terminationMessagePolicy",
        "the operator names the cause of a failure",
    ),
    Row::added(
        "/containers/0/securityContext/allowPrivilegeEscalation",
        "nothing needs it",
    ),
    Row::added(
        "/containers/0/securityContext/capabilities/drop",
        "no other capability is needed",
    ),
    Row::removed(
        "/containers/0/securityContext/runAsUser",
        "stated for the whole pod",
    ),
    Row::removed(
        "/containers/0/securityContext/runAsGroup",
        "stated for the whole pod",
    ),
    Row::added("/securityContext", "stated for the whole pod"),
    Row::removed(
        "/containers/0/volumeMounts/~1var~1cache~1huggingface",
        "below /.cache, or a claim",
    ),
    Row::removed("/containers/0/volumeMounts/~1var~1cache~1vllm", "below /.cache"),
    Row::changed(
        "/containers/0/volumeMounts/~1dev~1shm",
        "shm",
        "the name of the other paths",
    ),
    Row::added("/containers/0/volumeMounts", "the directories of the other paths"),
    Row::removed("/volumes/dshm", "the name of the other paths"),
    Row::removed(
        "/volumes/hf-cache",
        "no directory of a node is mounted: Pod Security forbids it",
    ),
    Row::removed(
        "/volumes/jit-cache",
        "no directory of a node is mounted: Pod Security forbids it",
    ),
    Row::added("/volumes", "the directories of the other paths"),
    Row::changed(
        "/serviceAccountName",
        "x-modelserver",
        "children are named after their deployment",
    ),
    Row::added(
        "/automountServiceAccountToken",
        "engines ask the API server nothing",
    ),
    Row::added("/terminationGracePeriodSeconds", "preStop + drain + 15 s"),
    Row::added(
        "/topologySpreadConstraints",
        "a node that fails takes as few engines as possible",
    ),
];

fn template(role: &str) -> Value {
    let set = object(&deployed(), "LeaderWorkerSet", &format!("x-{role}"));
    assert_eq!(set["apiVersion"], "leaderworkerset.x-k8s.io/v1");
    let spec = &set["spec"];
    assert_eq!(
        (&spec["replicas"], &spec["leaderWorkerTemplate"]["size"]),
        (&json!(1), &json!(2))
    );
    assert!(
        spec["leaderWorkerTemplate"]["leaderTemplate"].is_null(),
        "the leader is a worker, too"
    );
    spec["leaderWorkerTemplate"]["workerTemplate"].clone()
}

#[test]
fn a_prefill_group_is_the_guides() {
    both_ways(&guide(false), &template("prefill")["spec"], COMMON);
}

#[test]
fn a_decode_group_and_its_sidecars_are_the_guides() {
    let own = [
        Row::added(
            "/containers/0/env/VLLM_HTTP_TIMEOUT_KEEP_ALIVE",
            "its own sidecar keeps connections for 90 s, too",
        ),
        Row::changed(
            "/initContainers/0/image",
            "ghcr.io/llmd-dev/llmd:v0.1.0",
            "our sidecar",
        ),
        Row::added("/initContainers/0/args/sidecar", "the role of our one binary"),
        Row::added(
            "/initContainers/0/args/--model-server-port",
            "named, so that it is the engine's",
        ),
        Row::added(
            "/initContainers/0/args/--secure-serving",
            "inside the cluster's network; the guide's P/D says so, too",
        ),
        Row::added(
            "/initContainers/0/env/POD_IP",
            "a request that was meant for another pod is not paired (design 0012)",
        ),
        Row::added(
            "/initContainers/0/readinessProbe",
            "the engine's probe says nothing about the way to it",
        ),
        Row::added(
            "/initContainers/0/resources",
            "a namespace with a quota wants them",
        ),
        Row::added(
            "/initContainers/0/securityContext",
            "the restricted Pod Security profile",
        ),
        Row::added(
            "/initContainers/0/terminationMessagePolicy",
            "the operator names the cause of a failure",
        ),
    ];
    both_ways(
        &guide(true),
        &template("decode")["spec"],
        &[COMMON, &own].concat(),
    );
}

#[test]
fn every_rank_is_a_target_of_the_pool() {
    let rendered = deployed();
    let pool = object(&rendered, "InferencePool", "x");
    let ports: Vec<i64> = pool["spec"]["targetPorts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|port| port["number"].as_i64().unwrap())
        .collect();
    assert_eq!(ports, (8000..8008).collect::<Vec<_>>());
    let labels = &template("decode")["metadata"]["labels"];
    for (key, value) in pool["spec"]["selector"]["matchLabels"].as_object().unwrap() {
        assert_eq!(&labels[key], value, "the pool selects pods by {key}");
    }
}

#[test]
fn the_example_has_at_most_eighteen_lines() {
    let text = include_str!("../../../../examples/wide-expert-parallel.yaml");
    let lines = text.lines().filter(|line| !line.starts_with('#')).count();
    assert!(lines <= 18, "{lines}");
}

/// An engine that fits into one pod needs no LeaderWorkerSet.
#[test]
fn ranks_of_one_pod_are_a_deployment() {
    let rendered =
        rendered("{model: {uri: 'hf://a/b'}, pools: [{name: decode, parallelism: {tensor: 2, data: 4}}]}");
    let deployment = object(&rendered, "Deployment", "x-decode");
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["resources"]["limits"]["nvidia.com/gpu"], "8");
    assert_eq!(
        container["ports"].as_array().unwrap().len(),
        5,
        "four ranks and their supervisor"
    );
    assert!(!container["args"].to_string().contains("LWS_"));
}
