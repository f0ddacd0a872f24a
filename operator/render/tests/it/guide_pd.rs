//! The rendered `prefill-decode` against llm-d's guide `pd-disaggregation` (NVIDIA, vLLM, v0.8): every field of both,
//! so that one that neither table explains fails.

use serde_json::{Value, json};

use crate::compared::{Row, both_ways};
use crate::support::{object, rendered};

fn deployed() -> llmd_render::Rendered {
    rendered("{path: prefill-decode, pathVersion: v1, model: {uri: 'hf://openai/gpt-oss-120b'}}")
}

/// What differs from the guide in the pods of both roles, and why.
const COMMON: &[Row] = &[
    Row::changed(
        "/containers/0/image",
        "\"docker.io/vllm/vllm-openai:v0.23.0\"",
        "with its registry: clusters that enforce full names refuse short ones",
    ),
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
    Row::added(
        "/containers/0/env/VLLM_NIXL_SIDE_CHANNEL_PORT",
        "the port that the NetworkPolicy closes",
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
    Row::changed(
        "/containers/0/args/--kv-transfer-config",
        r#"{"kv_connector":"NixlConnector","kv_role":"kv_both","kv_load_failure_policy":"recompute"}"#,
        "a prefill engine that dies is no error of the client",
    ),
];

fn pod(role: &str, cpu: &str, memory: &str, gpus: i32, port: i32) -> Value {
    let mut container = json!({
        "name": "modelserver",
        "image": "vllm/vllm-openai:v0.23.0",
        "command": ["vllm", "serve"],
        "args": {
            "openai/gpt-oss-120b": "",
            "--disable-access-log-for-endpoints": "/health,/metrics,/v1/models",
            "--block-size": "128",
            "--kv-transfer-config": r#"{"kv_connector":"NixlConnector","kv_role":"kv_both"}"#,
            "--no-disable-hybrid-kv-cache-manager": "",
            "--tensor-parallel-size": gpus.to_string(),
        },
        "env": {
            "HF_TOKEN": {"secretKeyRef": {"name": "llm-d-hf-token", "key": "HF_TOKEN"}},
            "VLLM_NIXL_SIDE_CHANNEL_HOST": {"fieldRef": {"fieldPath": "status.podIP"}},
        },
        "ports": {"modelserver": port, "nixl": 5600},
        "startupProbe": {"httpGet": {"path": "/v1/models", "port": "modelserver"}, "initialDelaySeconds": 15, "periodSeconds": 30, "timeoutSeconds": 5, "failureThreshold": 120},
        "livenessProbe": {"httpGet": {"path": "/health", "port": "modelserver"}, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 3},
        "readinessProbe": {"httpGet": {"path": "/v1/models", "port": "modelserver"}, "periodSeconds": 5, "timeoutSeconds": 2, "failureThreshold": 3},
        "resources": {
            "limits": {"cpu": cpu, "memory": memory, "nvidia.com/gpu": gpus.to_string()},
            "requests": {"cpu": cpu, "memory": memory, "nvidia.com/gpu": gpus.to_string()},
        },
        "volumeMounts": {"/dev/shm": "shm", "/.cache": "torch-compile-cache", "/.triton": "triton-cache", "/.config": "vllm-config"},
    });
    if role == "prefill" {
        container["env"]["VLLM_HTTP_TIMEOUT_KEEP_ALIVE"] = "120".into();
    } else {
        container["args"]["--port"] = "8200".into();
    }
    json!({
        "containers": [container],
        "serviceAccountName": "guide",
        "automountServiceAccountToken": false,
        "volumes": {
            "shm": {"medium": "Memory", "sizeLimit": "20Gi"}, "torch-compile-cache": {}, "triton-cache": {}, "vllm-config": {},
        },
    })
}

/// The account's name follows the deployment's.
const ACCOUNT: Row = Row::changed(
    "/serviceAccountName",
    "\"x-modelserver\"",
    "children are named after their deployment",
);

#[test]
fn a_prefill_engine_is_the_guides() {
    let ours = object(&deployed(), "Deployment", "x-prefill");
    assert_eq!(ours["spec"]["replicas"], 8);
    let guide = pod("prefill", "8", "16Gi", 1, 8000);
    both_ways(
        &guide,
        &ours["spec"]["template"]["spec"],
        &[COMMON, &[ACCOUNT]].concat(),
    );
}

#[test]
fn a_decode_engine_and_its_sidecar_are_the_guides() {
    let ours = object(&deployed(), "Deployment", "x-decode");
    assert_eq!(ours["spec"]["replicas"], 2);
    let mut guide = pod("decode", "16", "64Gi", 4, 8200);
    guide["initContainers"] = json!([{
        "name": "routing-proxy",
        "image": "ghcr.io/llm-d/llm-d-router-disagg-sidecar",
        "imagePullPolicy": "Always",
        "restartPolicy": "Always",
        "args": {
            "--port": "8000", "--vllm-port": "8200", "--kv-connector": "nixlv2", "--zap-log-level": "1",
            "--secure-proxy": "false",
        },
        "ports": {"sidecar": 8000},
        "resources": {},
        "securityContext": {"allowPrivilegeEscalation": false, "runAsNonRoot": true},
    }]);
    let own: Vec<Row> = [
        ACCOUNT,
        Row::added(
            "/containers/0/env/VLLM_HTTP_TIMEOUT_KEEP_ALIVE",
            "its own sidecar keeps connections for 90 s, too",
        ),
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
    ]
    .into();
    let common: Vec<Row> = COMMON
        .iter()
        .filter(|row| !row.is("/containers/0/args/--port"))
        .copied()
        .collect();
    both_ways(&guide, &ours["spec"]["template"]["spec"], &[common, own].concat());
}

#[test]
fn the_labels_of_both_roles_are_the_guides() {
    for role in ["prefill", "decode"] {
        let ours = object(&deployed(), "Deployment", &format!("x-{role}"));
        let labels = &ours["spec"]["template"]["metadata"]["labels"];
        for (key, value) in [
            ("llm-d.ai/guide", "prefill-decode"),
            ("llm-d.ai/model", "gpt-oss-120b"),
            ("llm-d.ai/role", role),
            ("llm-d.ai/accelerator-variant", "gpu"),
            ("llm-d.ai/accelerator-vendor", "nvidia"),
            ("llm-d.ai/inference-serving", "true"),
        ] {
            assert_eq!(labels[key], value, "{role}: {key}");
        }
        assert_eq!(ours["spec"]["selector"]["matchLabels"]["llm-d.ai/role"], role);
    }
}

#[test]
fn the_profiles_have_the_guides_weights() {
    let config_map = object(&deployed(), "ConfigMap", "x-epp");
    let text = config_map["data"]["default-plugins.yaml"].as_str().unwrap();
    let config: Value = serde_yaml::from_str(text).unwrap();
    let profiles: Vec<(&str, Vec<(&str, i64)>)> = config["schedulingProfiles"]
        .as_array()
        .unwrap()
        .iter()
        .map(|profile| {
            let plugins = profile["plugins"].as_array().unwrap().iter();
            let of = |plugin: &'_ Value| plugin["weight"].as_i64().unwrap_or_default();
            let plugins = plugins.map(|plugin| (plugin["pluginRef"].as_str().unwrap(), of(plugin)));
            (profile["name"].as_str().unwrap(), plugins.collect())
        })
        .collect();
    assert_eq!(
        profiles,
        [
            (
                "prefill",
                vec![
                    ("prefill-filter", 0),
                    ("prefix-cache-scorer", 3),
                    ("queue-scorer", 2),
                    ("kv-cache-utilization-scorer", 2)
                ]
            ),
            (
                "decode",
                vec![
                    ("decode-filter", 0),
                    ("active-request-scorer", 2),
                    ("prefix-cache-scorer", 3)
                ]
            ),
        ]
    );
}

#[test]
fn the_example_has_at_most_twelve_lines() {
    let text = include_str!("../../../../examples/prefill-decode.yaml");
    let lines = text.lines().filter(|line| !line.starts_with('#')).count();
    assert!(lines <= 12, "{lines}");
}

/// KV blocks move between equal engines only, and the number of engines is no difference.
#[test]
fn one_revision_is_on_all_roles_and_moves_with_any_of_them() {
    let revision = |spec: &str, pool: &str| {
        let spec = format!("{{path: prefill-decode, pathVersion: v1, model: {{uri: 'hf://a/b'}}, {spec}}}");
        let deployment = object(&rendered(&spec), "Deployment", pool);
        let label = &deployment["spec"]["template"]["metadata"]["labels"]["llmd.dev/revision"];
        label.as_str().unwrap().to_owned()
    };
    let base = revision("replicas: 1", "x-prefill");
    assert_eq!(base, revision("replicas: 1", "x-decode"));
    assert_eq!(
        base,
        revision("pools: [{name: prefill, replicas: 3}]", "x-decode")
    );
    assert_ne!(base, revision("engine: {args: {seed: '1'}}", "x-prefill"));
    let decode = "pools: [{name: decode, resources: {limits: {memory: 80Gi}}}]";
    assert_ne!(base, revision(decode, "x-prefill"));
    assert_eq!(revision(decode, "x-prefill"), revision(decode, "x-decode"));
}

#[test]
fn only_engines_of_the_deployment_reach_the_side_channel() {
    let policy = object(&deployed(), "NetworkPolicy", "x-kv");
    let spec = &policy["spec"];
    let engines = json!({"llmd.dev/deployment": "x", "llm-d.ai/inference-serving": "true"});
    assert_eq!(spec["podSelector"]["matchLabels"], engines);
    let open: Vec<&Value> = spec["ingress"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|rule| rule["from"].is_null())
        .flat_map(|rule| rule["ports"].as_array().unwrap())
        .map(|port| &port["port"])
        .collect();
    assert_eq!(open, [8000, 8200], "the side channel 5600 is open to everybody");
    assert_eq!(
        spec["ingress"][1]["from"][0]["podSelector"]["matchLabels"],
        engines
    );
}

/// Each revision has workloads of its own, so that none is replaced before the others are.
#[test]
fn a_revision_has_workloads_of_its_own_unless_pools_roll_by_themselves() {
    let names = |strategy: &str| -> Vec<String> {
        let spec = format!(
            "{{path: prefill-decode, pathVersion: v1, model: {{uri: 'hf://a/b'}}, rollout: {{strategy: {strategy}}}}}"
        );
        let rendered = rendered(&spec);
        let workloads = rendered.objects.iter().filter(|object| object.pool().is_some());
        workloads.map(|object| object.name().to_owned()).collect()
    };
    assert_eq!(names("RollingUpdate"), ["x-prefill", "x-decode"]);
    let coherent = names("Coherent");
    let (prefill, decode) = (&coherent[0], &coherent[1]);
    assert_eq!(
        prefill.strip_prefix("x-prefill"),
        decode.strip_prefix("x-decode"),
        "one revision"
    );
    let deployment = object(&deployed(), "Deployment", "x-decode");
    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    let selector = deployment["spec"]["selector"]["matchLabels"].as_object().unwrap();
    assert!(
        selector.contains_key("llmd.dev/revision"),
        "pods of two revisions are not one workload's"
    );
    for (key, value) in selector {
        assert_eq!(&labels[key], value, "{key}");
    }
}

/// llm-d's guide of later releases has one set, with groups of size 1 for each role.
#[test]
fn a_disaggregated_set_has_both_roles_and_nothing_else_differs() {
    let with = |strategy: &str| {
        rendered(&format!(
            "{{path: prefill-decode, pathVersion: v1, model: {{uri: 'hf://openai/gpt-oss-120b'}}, \
             rollout: {{strategy: {strategy}}}}}"
        ))
    };
    let set = object(&with("DisaggregatedSet"), "DisaggregatedSet", "x");
    assert_eq!(set["apiVersion"], "disaggregatedset.x-k8s.io/v1");
    let coherent = with("Coherent");
    for (index, (role, replicas)) in [("prefill", 8), ("decode", 2)].into_iter().enumerate() {
        let of = &set["spec"]["roles"][index];
        assert_eq!(
            (&of["name"], &of["spec"]["replicas"]),
            (&json!(role), &json!(replicas))
        );
        let template = &of["spec"]["leaderWorkerTemplate"];
        assert_eq!(template["size"], 1);
        let deployment = object(&coherent, "Deployment", &format!("x-{role}"));
        assert_eq!(
            template["workerTemplate"], deployment["spec"]["template"],
            "{role}: the same engines"
        );
        assert_eq!(
            of["metadata"]["labels"],
            deployment["spec"]["template"]["metadata"]["labels"]
        );
        let rolling = &of["spec"]["rolloutStrategy"]["rollingUpdateConfiguration"];
        assert_eq!(
            rolling,
            &json!({"maxUnavailable": 1, "maxSurge": 0}),
            "the guide's prefill"
        );
    }
}

#[test]
fn simulated_engines_know_their_revision() {
    let rendered = rendered("{path: simulated-prefill-decode, pathVersion: v1, model: {name: a}}");
    for role in ["x-prefill", "x-decode"] {
        let deployment = object(&rendered, "Deployment", role);
        let container = &deployment["spec"]["template"]["spec"]["containers"][0];
        let env = container["env"].as_array().unwrap();
        let revision = env.iter().find(|one| one["name"] == "LLMD_SIM_REVISION").unwrap();
        assert_eq!(
            revision["valueFrom"]["fieldRef"]["fieldPath"],
            "metadata.labels['llmd.dev/revision']"
        );
        let args = container["args"].to_string();
        assert!(
            args.contains("--block-size=16") && args.contains("NixlConnector"),
            "{args}"
        );
    }
}
