//! The rendered `prefill-decode` against llm-d's guide `pd-disaggregation` (NVIDIA, vLLM, v0.8): every field of both,
//! so that one that neither table explains fails.

use serde_json::{Value, json};

use crate::compared::{Row, both_ways};
use crate::guide_rows::{self, ACCOUNT, ENGINE, SIDECAR};
use crate::support::{object, rendered};

fn deployed() -> llmd_render::Rendered {
    rendered("{path: prefill-decode, pathVersion: v1, model: {uri: 'hf://openai/gpt-oss-120b'}}")
}

/// What differs from this guide in the pods of both roles, and why.
const COMMON: &[Row] = &[
    Row::changed(
        "/containers/0/image",
        "\"docker.io/vllm/vllm-openai:v0.23.0\"",
        "with its registry: clusters that enforce full names refuse short ones",
    ),
    Row::added(
        "/containers/0/env/VLLM_NIXL_SIDE_CHANNEL_PORT",
        "the port that the NetworkPolicy closes",
    ),
    Row::changed(
        "/containers/0/args/--kv-transfer-config",
        r#"{"kv_connector":"NixlConnector","kv_role":"kv_both","kv_load_failure_policy":"recompute"}"#,
        "a prefill engine that dies is no error of the client",
    ),
];

fn pod(role: &str, cpu: &str, memory: &str, gpus: i32, port: i32) -> Value {
    let mut container = json!({
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
        "env": {"VLLM_NIXL_SIDE_CHANNEL_HOST": {"fieldRef": {"fieldPath": "status.podIP"}}},
        "ports": {"modelserver": port, "nixl": 5600},
        "resources": {
            "limits": guide_rows::quantities(cpu, memory, gpus),
            "requests": guide_rows::quantities(cpu, memory, gpus),
        },
    });
    if role == "prefill" {
        container["env"]["VLLM_HTTP_TIMEOUT_KEEP_ALIVE"] = "120".into();
    } else {
        container["args"]["--port"] = "8200".into();
    }
    guide_rows::pod(container, "20Gi")
}

#[test]
fn a_prefill_engine_is_the_guides() {
    let ours = object(&deployed(), "Deployment", "x-prefill");
    assert_eq!(ours["spec"]["replicas"], 8);
    let guide = pod("prefill", "8", "16Gi", 1, 8000);
    both_ways(
        &guide,
        &ours["spec"]["template"]["spec"],
        &[ENGINE, COMMON, &[ACCOUNT]].concat(),
    );
}

#[test]
fn a_decode_engine_and_its_sidecar_are_the_guides() {
    let ours = object(&deployed(), "Deployment", "x-decode");
    assert_eq!(ours["spec"]["replicas"], 2);
    let mut guide = pod("decode", "16", "64Gi", 4, 8200);
    guide["initContainers"] = guide_rows::sidecar("nixlv2");
    let own = [
        ACCOUNT,
        Row::added(
            "/containers/0/env/VLLM_HTTP_TIMEOUT_KEEP_ALIVE",
            "its own sidecar keeps connections for 90 s, too",
        ),
    ];
    let engine = guide_rows::without(ENGINE, &["/containers/0/args/--port"]);
    both_ways(
        &guide,
        &ours["spec"]["template"]["spec"],
        &[&engine, COMMON, SIDECAR, &own].concat(),
    );
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
