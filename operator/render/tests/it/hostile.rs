//! No text of an author becomes structure, wherever the schema lets one write text.

use std::cell::Cell;

use llmd_crds::LLMDeployment;
use llmd_render::{Inputs, RenderOptions, Rendered, decode_value, render, validate};
use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};
use serde_json::{Value, json};

/// What means something to YAML, JSON, shells, templates, paths, Envoy or the API server.
const FRAGMENTS: [&str; 24] = [
    "\n",
    ": ",
    "- ",
    "#",
    "'",
    "\"",
    "}, {",
    "---\n",
    "|",
    "&a *a",
    "!!binary ",
    "{{ .Values.x }}",
    "$(HOME)",
    "${HOME}",
    "`id`",
    "; rm",
    "../",
    "/",
    "--",
    "%ENVIRONMENT(X)%",
    "hostNetwork: true",
    "\u{202e}",
    "\u{0}",
    "plain",
];
/// Settings of a pod that an author may write; everything else is ours.
const AUTHORS: [&str; 4] = [
    "nodeSelector",
    "tolerations",
    "priorityClassName",
    "imagePullSecrets",
];
const CASES: u32 = 2000;

fn texts() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        3 => prop::sample::select(&FRAGMENTS[..]).prop_map(str::to_owned),
        1 => "[a-z0-9]{1,8}",
        1 => any::<String>(),
    ];
    prop::collection::vec(part, 1..5).prop_map(|parts| parts.concat())
}

/// One of each list and both proxies; behind a gateway there is another spec.
fn bases() -> [Value; 2] {
    let common = json!({
        "path": "optimized-baseline",
        "model": {"uri": "hf://org/model", "tokenSecretRef": {"name": "s"}, "storage": {"claimName": "c"}},
        "engine": {"env": [{"name": "A", "value": "v"}]},
        "pools": [{"name": "decode", "replicas": 1, "engine": {"env": [{"name": "B", "value": "v"}]}}],
        "scheduling": {"tolerations": [{"key": "k", "operator": "Equal", "value": "v"}]},
    });
    let mut gateway = common.clone();
    gateway["router"] = json!({"mode": "Gateway", "gateway": {"parentRefs": [{"name": "g"}]}});
    [common, gateway]
}

/// Every place of a spec whose text the schema does not choose from a list, as a pointer; `KEY` is a key of a map.
fn places() -> Vec<String> {
    let definitions = llmd_crds::all();
    let deployment = definitions
        .iter()
        .find(|one| one.spec.names.kind == "LLMDeployment")
        .unwrap();
    let schema = serde_json::to_value(&deployment.spec.versions[0].schema).unwrap();
    let mut found = Vec::new();
    walk("", &schema["openAPIV3Schema"]["properties"]["spec"], &mut found);
    found
}

fn walk(place: &str, schema: &Value, found: &mut Vec<String>) {
    let is_text = schema["type"] == "string" || schema["x-kubernetes-int-or-string"] == true;
    if is_text && schema["enum"].is_null() {
        found.push(place.to_owned());
    }
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        walk(&format!("{place}/{name}"), inner, found);
    }
    if schema["items"].is_object() {
        walk(&format!("{place}/0"), &schema["items"], found);
    }
    if schema["additionalProperties"].is_object() {
        walk(&format!("{place}/KEY"), &schema["additionalProperties"], found);
        found.push(format!("{place}/VALUE"));
    }
}

/// Writes a text at a place, making what is on the way.
fn set(value: &mut Value, place: &str, text: &str) {
    let (first, rest) = place[1..].split_once('/').unwrap_or((&place[1..], ""));
    let inner = match first {
        "0" => {
            if !value.is_array() {
                *value = json!([{}]);
            }
            &mut value[0]
        }
        "KEY" => &mut value[text],
        "VALUE" => &mut value["a"],
        "valueFrom" => {
            // beside a value it would be refused for that
            *value = json!({"name": "A", "valueFrom": value["valueFrom"]});
            &mut value["valueFrom"]
        }
        "secretKeyRef" | "configMapKeyRef" => {
            if !value[first].is_object() {
                *value = json!({first: {"name": "s", "key": "k"}});
            }
            &mut value[first]
        }
        name => &mut value[name],
    };
    match rest {
        "" if first == "KEY" => *inner = "x".into(),
        "" => *inner = text.into(),
        rest => set(inner, &format!("/{rest}"), text),
    }
}

fn rendered(spec: &Value) -> Option<Rendered> {
    let document = json!({
        "apiVersion": "llmd.dev/v1alpha1", "kind": "LLMDeployment", "metadata": {"name": "x"}, "spec": spec,
    });
    let Ok(llmd_render::Document::Deployment(deployment)) = decode_value(document) else {
        return None;
    };
    let deployment: &LLMDeployment = &deployment;
    let validated = validate(Inputs {
        deployment,
        paths: &[],
        accelerators: &[],
        namespace: "default",
        kept: None,
    });
    Some(render(&validated.ok()?.deployment, &RenderOptions::default()))
}

fn values(rendered: &Rendered) -> Vec<Value> {
    rendered
        .objects
        .iter()
        .map(llmd_render::Object::to_value)
        .collect()
}

/// What does not depend on any text.
fn fixed(objects: &[Value]) -> Vec<Value> {
    objects
        .iter()
        .map(|object| {
            let pod = &object["spec"]["template"]["spec"];
            let settings: Vec<&String> = pod
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, _)| name)
                .filter(|name| !AUTHORS.contains(&name.as_str()))
                .collect();
            json!([
                [
                    object["kind"],
                    object["metadata"]["name"],
                    object["metadata"]["namespace"]
                ],
                [object["rules"], object["roleRef"], object["subjects"]],
                object["data"]["envoy.yaml"],
                [
                    object["spec"]["selector"],
                    object["spec"]["rules"][0]["backendRefs"]
                ],
                [settings, pod["securityContext"], pod["serviceAccountName"]],
                [containers(&pod["initContainers"]), containers(&pod["containers"])],
            ])
        })
        .collect()
}

/// Containers without what authors write: images, arguments, variables, resources.
fn containers(list: &Value) -> Vec<Value> {
    let containers = list.as_array().into_iter().flatten();
    containers
        .map(|container| {
            json!([
                container["name"],
                container["command"],
                container["securityContext"],
                container["volumeMounts"],
                container["ports"],
                container.as_object().unwrap().len() >= 5,
            ])
        })
        .collect()
}

#[test]
fn no_text_changes_the_shape_of_what_is_rendered() {
    let places: Vec<String> = places()
        .into_iter()
        // names of pools are names of objects, which is what they are for; paths choose everything; a class is claimed
        // by one more object
        .filter(|place| {
            let class = "/pools/0/accelerator/deviceClassName";
            !["/pools/0/name", "/path", "/pathVersion", class].contains(&place.as_str())
        })
        .collect();
    assert!(places.len() > 60, "{} places", places.len());
    let plain = bases().map(|base| fixed(&values(&rendered(&base).unwrap())));
    let taken = Cell::new(0);
    let case = (0..2_usize, prop::sample::select(places), texts());
    let config = ProptestConfig {
        // a failing text is short as it is
        max_shrink_iters: 200,
        ..ProptestConfig::with_cases(CASES)
    };
    let outcome = TestRunner::new(config).run(&case, |(base, place, text)| {
        let text = if place == "/model/uri" {
            format!("hf://org/{text}")
        } else {
            text
        };
        let mut spec = bases()[base].clone();
        set(&mut spec, &place, &text);
        let Some(rendered) = rendered(&spec) else {
            return Ok(());
        };
        taken.set(taken.get() + 1);
        let objects = values(&rendered);
        prop_assert_eq!(fixed(&objects), plain[base].clone(), "{}: {:?}", place, text);
        let again: Result<Vec<Value>, _> = serde_yaml::Deserializer::from_str(&rendered.to_yaml())
            .map(serde::Deserialize::deserialize)
            .collect();
        let again = again.map_err(|error| TestCaseError::fail(format!("{place}: {text:?}: {error}")))?;
        prop_assert_eq!(again, objects, "{}: {:?}", place, text);
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    assert!(
        taken.get() > CASES / 10,
        "only {} of {CASES} texts were taken",
        taken.get()
    );
}
