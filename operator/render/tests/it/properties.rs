//! What holds for every spec.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::{Documents, document};

/// Specs that differ in everything a user edits over a deployment's life.
fn specs() -> impl Strategy<Value = Value> {
    let text = "[a-z][a-z0-9]{0,8}";
    let strings = || prop::collection::btree_map(text, text, 0..3);
    (
        (prop::bool::ANY, prop::bool::ANY, 0..50_i32, prop::bool::ANY),
        (strings(), strings(), strings(), strings()),
        (
            prop::option::of(text),
            prop::collection::vec(text, 0..3),
            31..600_u32,
        ),
    )
        .prop_map(|(choices, maps, rest)| {
            let (simulated, builtin, replicas, stopped) = choices;
            let (args, labels, node_selector, annotations) = maps;
            let (image, aliases, drain) = rest;
            let args: BTreeMap<String, String> = args
                .into_iter()
                .map(|(key, value)| (format!("x-{key}"), value))
                .collect();
            let mut engine = json!({"args": args});
            if let Some(image) = image {
                engine["image"] = image.into();
            }
            json!({
                "path": if simulated { "simulated" } else { "optimized-baseline" },
                "replicas": replicas,
                "stopped": stopped,
                "model": {"uri": "hf://org/model", "aliases": aliases},
                "engine": engine,
                "router": {"proxy": {"type": if builtin { "Builtin" } else { "Envoy" }}},
                "scheduling": {"nodeSelector": node_selector},
                "commonMetadata": {"labels": labels, "annotations": annotations},
                "rollout": {"drain": format!("{drain}s")},
            })
        })
}

fn objects(spec: &Value) -> Vec<Value> {
    let documents = Documents::read(&document(&spec.to_string()));
    documents
        .render(0)
        .objects
        .iter()
        .map(llmd_render::Object::to_value)
        .collect()
}

fn selectors(objects: &[Value]) -> BTreeMap<String, Value> {
    let selectors = objects.iter().filter_map(|object| {
        let selector = object.pointer("/spec/selector")?.clone();
        Some((
            format!("{}/{}", object["kind"], object["metadata"]["name"]),
            selector,
        ))
    });
    selectors.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_rendering_is_a_function_of_its_input(spec in specs()) {
        let text = document(&spec.to_string());
        let (one, two) = (Documents::read(&text).render(0), Documents::read(&text).render(0));
        prop_assert_eq!(one.to_yaml(), two.to_yaml());
    }

    /// A Deployment's selector cannot change, and a pool that selects other pods drops the running ones.
    #[test]
    fn no_edit_changes_a_selector(one in specs(), two in specs()) {
        prop_assert_eq!(selectors(&objects(&one)), selectors(&objects(&two)));
    }

    #[test]
    fn every_object_names_its_deployment_and_its_owner(spec in specs()) {
        for object in objects(&spec) {
            let labels = &object["metadata"]["labels"];
            prop_assert_eq!(&labels["llmd.dev/deployment"], "x");
            prop_assert_eq!(&labels["app.kubernetes.io/part-of"], "x");
            prop_assert_eq!(&labels["app.kubernetes.io/managed-by"], "llmd");
            prop_assert!(labels["app.kubernetes.io/component"].is_string());
            prop_assert!(labels["app.kubernetes.io/instance"].is_null(), "Argo CD would adopt it");
            prop_assert_eq!(&object["metadata"]["namespace"], "default");
            for (key, value) in spec["commonMetadata"]["labels"].as_object().unwrap() {
                prop_assert_eq!(&labels[key], value);
            }
        }
    }

    #[test]
    fn every_pod_runs_under_the_restricted_profile(spec in specs()) {
        for object in objects(&spec) {
            let Some(pod) = object.pointer("/spec/template/spec") else { continue };
            prop_assert_eq!(pod.pointer("/securityContext/runAsNonRoot"), Some(&json!(true)));
            prop_assert_eq!(pod.pointer("/securityContext/seccompProfile/type"), Some(&json!("RuntimeDefault")));
            for container in pod["containers"].as_array().unwrap() {
                let security = &container["securityContext"];
                prop_assert_eq!(&security["allowPrivilegeEscalation"], false);
                prop_assert_eq!(&security["capabilities"]["drop"], &json!(["ALL"]));
            }
            for volume in pod["volumes"].as_array().unwrap() {
                prop_assert!(volume["hostPath"].is_null());
            }
        }
    }
}
