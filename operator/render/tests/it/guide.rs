//! The rendered baseline against the values of llm-d's guide `optimized-baseline` (NVIDIA, vLLM), field by field.
//! Source: llm-d/llm-d `guides/optimized-baseline`, llm-d-router `config/charts/llm-d-router-standalone`.

use serde_json::{Value, json};

use crate::support::{object, rendered};

/// What we do with the guide's value.
enum Ours {
    /// The same.
    Same,
    /// Another value, for a reason.
    Differs(Value, &'static str),
}
use Ours::{Differs, Same};

fn baseline() -> llmd_render::Rendered {
    rendered("{path: optimized-baseline, pathVersion: v1, model: {uri: 'hf://Qwen/Qwen3-32B'}}")
}

fn compare(object: &Value, rows: Vec<(&str, Value, Ours)>) {
    for (pointer, guide, ours) in rows {
        let found = object.pointer(pointer).cloned().unwrap_or(Value::Null);
        match ours {
            Same => assert_eq!(found, guide, "{pointer}"),
            Differs(ours, why) => {
                assert_eq!(found, ours, "{pointer} ({why})");
                assert_ne!(found, guide, "{pointer} no longer differs: {why}");
            }
        }
    }
}

#[test]
fn the_engine_is_the_guides() {
    let deployment = object(&baseline(), "Deployment", "x-decode");
    let container = "/spec/template/spec/containers/0";
    let at = |rest: &str| format!("{container}{rest}");
    let paths: Vec<(String, Value, Ours)> = vec![
        (at("/name"), json!("modelserver"), Same),
        (
            at("/image"),
            json!("vllm/vllm-openai:v0.23.0"),
            Differs(
                json!("docker.io/vllm/vllm-openai:v0.23.0"),
                "with its registry: clusters that enforce full names refuse short ones",
            ),
        ),
        (at("/command"), json!(["vllm", "serve"]), Same),
        (at("/args/0"), json!("Qwen/Qwen3-32B"), Same),
        (at("/ports/0/name"), json!("modelserver"), Same),
        (at("/ports/0/containerPort"), json!(8000), Same),
        (at("/startupProbe/httpGet/path"), json!("/v1/models"), Same),
        (at("/startupProbe/initialDelaySeconds"), json!(15), Same),
        (at("/startupProbe/periodSeconds"), json!(30), Same),
        (at("/startupProbe/timeoutSeconds"), json!(5), Same),
        (at("/startupProbe/failureThreshold"), json!(120), Same),
        (at("/livenessProbe/httpGet/path"), json!("/health"), Same),
        (at("/livenessProbe/periodSeconds"), json!(10), Same),
        (at("/livenessProbe/timeoutSeconds"), json!(5), Same),
        (at("/livenessProbe/failureThreshold"), json!(3), Same),
        (at("/readinessProbe/httpGet/path"), json!("/v1/models"), Same),
        (at("/readinessProbe/periodSeconds"), json!(5), Same),
        (at("/readinessProbe/timeoutSeconds"), json!(2), Same),
        (at("/readinessProbe/failureThreshold"), json!(3), Same),
        (at("/resources/requests/cpu"), json!("8"), Same),
        (at("/resources/requests/memory"), json!("96Gi"), Same),
        (at("/resources/limits/cpu"), json!("16"), Same),
        (at("/resources/limits/memory"), json!("128Gi"), Same),
        (at("/resources/limits/nvidia.com~1gpu"), json!("2"), Same),
        (
            at("/lifecycle/preStop"),
            json!({"exec": {"command": ["/bin/sleep", "15"]}}),
            Differs(
                json!({"sleep": {"seconds": 15}}),
                "the kubelet's own action: images need no shell",
            ),
        ),
        ("/spec/replicas".to_owned(), json!(8), Same),
        (
            "/spec/template/spec/terminationGracePeriodSeconds".to_owned(),
            json!(75),
            Same,
        ),
        (
            "/spec/template/spec/automountServiceAccountToken".to_owned(),
            json!(false),
            Same,
        ),
        (
            "/spec/template/spec/securityContext/runAsNonRoot".to_owned(),
            Value::Null,
            Differs(json!(true), "the restricted Pod Security profile"),
        ),
    ];
    compare(
        &deployment,
        paths
            .iter()
            .map(|(path, guide, ours)| (path.as_str(), guide.clone(), copy(ours)))
            .collect(),
    );
    let args: Vec<&str> = strings(&deployment, &at("/args"));
    for flag in [
        "--disable-access-log-for-endpoints=/health,/metrics,/v1/models",
        "--tensor-parallel-size=2",
        "--shutdown-timeout=45",
    ] {
        assert!(args.contains(&flag), "{flag} is missing in {args:?}");
    }
}

fn copy(ours: &Ours) -> Ours {
    match ours {
        Same => Same,
        Differs(value, why) => Differs(value.clone(), why),
    }
}

fn strings<'a>(object: &'a Value, pointer: &str) -> Vec<&'a str> {
    object
        .pointer(pointer)
        .and_then(Value::as_array)
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect()
}

#[test]
fn the_pod_labels_are_the_guides() {
    let deployment = object(&baseline(), "Deployment", "x-decode");
    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    for (key, value) in [
        ("llm-d.ai/guide", "optimized-baseline"),
        ("llm-d.ai/model", "Qwen3-32B"),
        ("llm-d.ai/role", "decode"),
        ("llm-d.ai/accelerator-variant", "gpu"),
        ("llm-d.ai/accelerator-vendor", "nvidia"),
        ("llm-d.ai/inference-serving", "true"),
        ("llm-d.ai/engine-type", "vllm"),
    ] {
        assert_eq!(labels[key], value, "{key}");
    }
}

#[test]
fn the_writable_directories_are_the_guides() {
    let deployment = object(&baseline(), "Deployment", "x-decode");
    let mounts = deployment["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
        .as_array()
        .unwrap();
    for (name, path) in [
        ("shm", "/dev/shm"),
        ("torch-compile-cache", "/.cache"),
        ("triton-cache", "/.triton"),
        ("vllm-config", "/.config"),
    ] {
        let found = mounts
            .iter()
            .find(|mount| mount["name"] == name)
            .unwrap_or_else(|| panic!("no {name}"));
        assert_eq!(found["mountPath"], path);
    }
    let volumes = deployment["spec"]["template"]["spec"]["volumes"]
        .as_array()
        .unwrap();
    let shm = volumes.iter().find(|volume| volume["name"] == "shm").unwrap();
    assert_eq!(shm["emptyDir"], json!({"medium": "Memory", "sizeLimit": "20Gi"}));
}

#[test]
fn the_router_is_the_charts() {
    let rendered = baseline();
    let deployment = object(&rendered, "Deployment", "x-epp");
    compare(
        &deployment,
        vec![
            (
                "/spec/strategy/type",
                json!("Recreate"),
                Differs(
                    json!("RollingUpdate"),
                    "without an overlap every change of the router is an outage",
                ),
            ),
            ("/spec/replicas", json!(1), Same),
            (
                "/spec/template/spec/terminationGracePeriodSeconds",
                json!(130),
                Same,
            ),
            (
                "/spec/template/spec/containers/0/ports/0/containerPort",
                json!(9002),
                Same,
            ),
            (
                "/spec/template/spec/containers/0/ports/1/containerPort",
                json!(9003),
                Same,
            ),
            (
                "/spec/template/spec/containers/0/ports/2/containerPort",
                json!(9090),
                Same,
            ),
            (
                "/spec/template/spec/containers/0/livenessProbe/grpc/port",
                json!(9003),
                Same,
            ),
            (
                "/spec/template/spec/containers/0/livenessProbe/initialDelaySeconds",
                json!(5),
                Same,
            ),
            (
                "/spec/template/spec/containers/0/livenessProbe/periodSeconds",
                json!(10),
                Same,
            ),
            (
                "/spec/template/spec/containers/0/readinessProbe/periodSeconds",
                json!(2),
                Same,
            ),
            (
                "/spec/template/spec/containers/0/resources/requests/cpu",
                json!("4"),
                Differs(json!("1"), "a native picker needs a fraction of the Go one's CPU"),
            ),
            (
                "/spec/template/spec/initContainers/0/ports/0/containerPort",
                json!(8081),
                Same,
            ),
            (
                "/spec/template/spec/initContainers/0/ports/1/containerPort",
                json!(19001),
                Same,
            ),
            (
                "/spec/template/spec/initContainers/0/readinessProbe/httpGet/path",
                json!("/ready"),
                Same,
            ),
        ],
    );
    let service = object(&rendered, "Service", "x-epp");
    let ports: Vec<(i64, &str)> = service["spec"]["ports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|port| (port["port"].as_i64().unwrap(), port["name"].as_str().unwrap()))
        .collect();
    assert_eq!(
        ports,
        [(9002, "grpc-ext-proc"), (9090, "http-metrics"), (80, "http")]
    );
}

#[test]
fn the_scorers_have_the_guides_weights() {
    let config_map = object(&baseline(), "ConfigMap", "x-epp");
    let text = config_map["data"]["default-plugins.yaml"].as_str().unwrap();
    let config: Value = serde_yaml::from_str(text).unwrap();
    let plugins: Vec<(&str, i64)> = config["schedulingProfiles"][0]["plugins"]
        .as_array()
        .unwrap()
        .iter()
        .map(|plugin| {
            (
                plugin["pluginRef"].as_str().unwrap(),
                plugin["weight"].as_i64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        plugins,
        [
            ("queue-scorer", 2),
            ("kv-cache-utilization-scorer", 2),
            ("prefix-cache-scorer", 3),
            ("no-hit-lru-scorer", 2),
        ]
    );
}

/// Invariants of llm-d that no validation of a cluster finds.
#[test]
fn the_pool_the_service_and_the_pods_fit_together() {
    let rendered = baseline();
    let pool = object(&rendered, "InferencePool", "x");
    let pods = object(&rendered, "Deployment", "x-decode");
    let labels = &pods["spec"]["template"]["metadata"]["labels"];
    for (key, value) in pool["spec"]["selector"]["matchLabels"].as_object().unwrap() {
        assert_eq!(&labels[key], value, "the pool selects pods by {key}");
    }
    let router = object(&rendered, "Deployment", "x-epp");
    let picker = &router["spec"]["template"]["metadata"]["labels"];
    assert!(
        picker["llm-d.ai/inference-serving"].is_null(),
        "the pool would route to the router"
    );
    let service = object(&rendered, "Service", "x-epp");
    for (key, value) in service["spec"]["selector"].as_object().unwrap() {
        assert_eq!(&picker[key], value, "the service selects the router by {key}");
    }
    assert_eq!(pool["spec"]["endpointPickerRef"]["name"], "x-epp");
    assert_eq!(pool["spec"]["targetPorts"], json!([{"number": 8000}]));
}

#[test]
fn envoy_strips_routing_outputs_before_the_picker_sees_them() {
    let config_map = object(&baseline(), "ConfigMap", "x-proxy");
    let bootstrap: Value = serde_yaml::from_str(config_map["data"]["envoy.yaml"].as_str().unwrap()).unwrap();
    let manager = bootstrap
        .pointer("/static_resources/listeners/0/filter_chains/0/filters/0/typed_config")
        .unwrap();
    let mutations = manager["early_header_mutation_extensions"][0]["typed_config"]["mutations"]
        .as_array()
        .unwrap();
    let removed: Vec<&str> = mutations
        .iter()
        .filter_map(|mutation| mutation["remove"].as_str())
        .collect();
    for header in [
        "x-gateway-destination-endpoint",
        "x-prefiller-host-port",
        "x-encoder-hosts-ports",
        "x-data-parallel-host-port",
        "x-kv-cache-source-host-port",
    ] {
        assert!(removed.contains(&header), "{header} passes");
    }
    for input in ["x-gateway-inference-objective", "x-gateway-inference-fairness-id"] {
        assert!(!removed.contains(&input), "{input} is an input");
    }
}

/// The picker and Envoy read their files once: an edit must replace the pod, and nothing else may.
#[test]
fn an_edited_configuration_replaces_the_router_pod() {
    let template = |router: &str| {
        let rendered = rendered(&format!("{{model: {{uri: 'hf://a/b'}}, {router}}}"));
        object(&rendered, "Deployment", "x-epp")["spec"]["template"].clone()
    };
    let base = template("replicas: 1");
    assert_ne!(base, template("router: {proxy: {failOpen: false}}"));
    assert_ne!(
        base,
        template(
            "router: {epp: {config: {inline: {apiVersion: llm-d.ai/v1alpha1, kind: EndpointPickerConfig, \
             plugins: [{type: queue-scorer}]}}}}"
        )
    );
    assert_eq!(base, template("replicas: 2"));
}
