//! What is as in no guide, and why; and a guide's pod with what all of them have.

use serde_json::{Value, json};

use crate::compared::Row;

/// Every engine with weights.
pub(crate) const ENGINE: &[Row] = &[
    Row::added(
        "/containers/0/args/--port",
        "a port that is named can be moved by `llmd up`",
    ),
    Row::added("/containers/0/args/--served-model-name", "aliases"),
    Row::added(
        "/containers/0/args/--shutdown-timeout",
        "requests in flight end before the engine does",
    ),
    Row::added("/containers/0/env/POD_NAME", "names the pod in logs and events"),
    Row::added(
        "/containers/0/env/POD_NAMESPACE",
        "names the pod in logs and events",
    ),
    Row::added("/containers/0/env/POD_IP", "names the pod in logs and events"),
    Row::added("/containers/0/env/DO_NOT_TRACK", "/.config may be read-only"),
    Row::added(
        "/containers/0/env/USER",
        "torch looks up a name that an arbitrary user has not (vllm#44548)",
    ),
    Row::removed(
        "/containers/0/env/HF_TOKEN",
        "rendered with model.tokenSecretRef only: public models need none",
    ),
    Row::added(
        "/containers/0/lifecycle",
        "routers stop sending before the engine stops",
    ),
    Row::added(
        "/containers/0/securityContext",
        "the restricted Pod Security profile",
    ),
    Row::added(
        "/containers/0/terminationMessagePolicy",
        "the operator names the cause of a failure",
    ),
    Row::added(
        "/containers/0/volumeMounts/~1tmp",
        "the root file system is read-only",
    ),
    Row::added("/volumes/tmp", "the root file system is read-only"),
    Row::added("/securityContext", "the restricted Pod Security profile"),
    Row::added("/terminationGracePeriodSeconds", "preStop + drain + 15 s"),
    Row::added(
        "/topologySpreadConstraints",
        "a node that fails takes as few engines as possible",
    ),
];

/// The account's name follows the deployment's.
pub(crate) const ACCOUNT: Row = Row::changed(
    "/serviceAccountName",
    "\"x-modelserver\"",
    "children are named after their deployment",
);

/// Every routing sidecar.
pub(crate) const SIDECAR: &[Row] = &[
    Row::changed(
        "/initContainers/0/image",
        "\"ghcr.io/llmd-dev/llmd:v0.1.0\"",
        "our sidecar",
    ),
    Row::removed(
        "/initContainers/0/imagePullPolicy",
        "tags of releases do not move",
    ),
    Row::removed(
        "/initContainers/0/args/--vllm-port",
        "the deprecated name of --model-server-port",
    ),
    Row::added(
        "/initContainers/0/args/--model-server-port",
        "the name of --vllm-port that is not deprecated",
    ),
    Row::removed(
        "/initContainers/0/args/--secure-proxy",
        "the deprecated name of --secure-serving",
    ),
    Row::added(
        "/initContainers/0/args/--secure-serving",
        "the name of --secure-proxy that is not deprecated",
    ),
    Row::removed("/initContainers/0/args/--zap-log-level", "our default"),
    Row::added("/initContainers/0/args/sidecar", "the role of our one binary"),
    Row::added(
        "/initContainers/0/env/POD_IP",
        "a request that was meant for another pod is not paired (design 0012)",
    ),
    Row::added(
        "/initContainers/0/readinessProbe",
        "the engine's probe says nothing about the way to it",
    ),
    Row::added(
        "/initContainers/0/resources/limits",
        "a namespace with a quota wants them",
    ),
    Row::added(
        "/initContainers/0/resources/requests",
        "a namespace with a quota wants them",
    ),
    Row::added(
        "/initContainers/0/securityContext/runAsUser",
        "an engine beside it may be root",
    ),
    Row::added(
        "/initContainers/0/securityContext/capabilities",
        "the restricted Pod Security profile",
    ),
    Row::added(
        "/initContainers/0/securityContext/readOnlyRootFilesystem",
        "it writes nothing",
    ),
    Row::added(
        "/initContainers/0/terminationMessagePolicy",
        "the operator names the cause of a failure",
    ),
];

/// Rows without those of these fields.
pub(crate) fn without(rows: &[Row], pointers: &[&str]) -> Vec<Row> {
    let is_left = |row: &&Row| !pointers.iter().any(|pointer| row.is(pointer));
    rows.iter().filter(is_left).copied().collect()
}

/// The guides' sidecar with a connector.
pub(crate) fn sidecar(connector: &str) -> Value {
    json!([{
        "name": "routing-proxy",
        "image": "ghcr.io/llm-d/llm-d-router-disagg-sidecar",
        "imagePullPolicy": "Always",
        "restartPolicy": "Always",
        "args": {
            "--port": "8000", "--vllm-port": "8200", "--kv-connector": connector, "--zap-log-level": "1",
            "--secure-proxy": "false",
        },
        "ports": {"sidecar": 8000},
        "resources": {},
        "securityContext": {"allowPrivilegeEscalation": false, "runAsNonRoot": true},
    }])
}

/// CPU, memory, accelerators.
pub(crate) fn quantities(cpu: &str, memory: &str, gpus: i32) -> Value {
    json!({"cpu": cpu, "memory": memory, "nvidia.com/gpu": gpus.to_string()})
}

/// Probes, volumes, token: what pods of all guides have.
pub(crate) fn pod(container: Value, shared_memory: &str) -> Value {
    let mut container = container;
    let own = container.as_object_mut().unwrap();
    own.insert("name".into(), "modelserver".into());
    let probe = |path: &str| json!({"path": path, "port": "modelserver"});
    own.insert("startupProbe".into(), json!({"httpGet": probe("/v1/models"), "initialDelaySeconds": 15, "periodSeconds": 30, "timeoutSeconds": 5, "failureThreshold": 120}));
    own.insert(
        "livenessProbe".into(),
        json!({"httpGet": probe("/health"), "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 3}),
    );
    own.insert("readinessProbe".into(), json!({"httpGet": probe("/v1/models"), "periodSeconds": 5, "timeoutSeconds": 2, "failureThreshold": 3}));
    let mounts = own.entry("volumeMounts").or_insert_with(|| json!({}));
    for (path, name) in [
        ("/dev/shm", "shm"),
        ("/.cache", "torch-compile-cache"),
        ("/.triton", "triton-cache"),
        ("/.config", "vllm-config"),
    ] {
        mounts[path] = name.into();
    }
    container["env"]["HF_TOKEN"] = json!({"secretKeyRef": {"name": "llm-d-hf-token", "key": "HF_TOKEN"}});
    json!({
        "containers": [container],
        "serviceAccountName": "guide",
        "automountServiceAccountToken": false,
        "volumes": {
            "shm": {"medium": "Memory", "sizeLimit": shared_memory}, "torch-compile-cache": {}, "triton-cache": {},
            "vllm-config": {},
        },
    })
}
