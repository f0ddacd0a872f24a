//! What an API server, a deployment tool and the CEL cost estimator expect of the schemas.

use llmd_crds::{AcceleratorProfile, LLMDeployment, WellLitPath};
use serde_json::Value;

/// Budget of one definition: beyond 256 KiB client-side apply breaks, and definitions only grow.
const SIZE_LIMIT: usize = 64 * 1024;

/// Schemas of all definitions with the name of their kind.
fn schemas() -> Vec<(String, Value)> {
    llmd_crds::all()
        .iter()
        .map(|definition| {
            let schema = definition.spec.versions[0].schema.as_ref().unwrap();
            let schema = serde_json::to_value(schema.open_api_v3_schema.as_ref().unwrap()).unwrap();
            (definition.spec.names.kind.clone(), schema)
        })
        .collect()
}

/// Calls `visit` with every schema node below `spec`, and its path.
fn walk(path: &str, schema: &Value, visit: &mut impl FnMut(&str, &Value)) {
    visit(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{name}"), property, visit);
    }
    if schema["items"].is_object() {
        walk(&format!("{path}[]"), &schema["items"], visit);
    }
    if schema["additionalProperties"].is_object() {
        walk(&format!("{path}{{}}"), &schema["additionalProperties"], visit);
    }
}

fn walk_specs(mut visit: impl FnMut(&str, &Value)) {
    for (kind, schema) in schemas() {
        walk(&kind, &schema["properties"]["spec"], &mut visit);
    }
}

#[test]
fn a_definition_stays_within_64_kib() {
    for definition in llmd_crds::all() {
        let size = serde_json::to_vec(&definition).unwrap().len();
        let kind = &definition.spec.names.kind;
        assert!(
            size <= SIZE_LIMIT,
            "{kind} has {size} bytes, the budget is {SIZE_LIMIT}"
        );
    }
}

#[test]
fn the_yaml_is_stable_and_holds_the_three_kinds() {
    let text = llmd_crds::yaml();
    assert_eq!(text, llmd_crds::yaml());
    assert!(
        !text.contains("imum: 1.0"),
        "an API server stores whole bounds: the diff would never end"
    );
    let kinds: Vec<String> = text
        .split("---\n")
        .filter(|document| !document.is_empty())
        .map(|document| {
            let value: Value = serde_yaml::from_str(document).unwrap();
            assert_eq!(value["spec"]["group"], llmd_crds::GROUP);
            assert_eq!(value["spec"]["versions"][0]["name"], llmd_crds::VERSION);
            value["spec"]["names"]["kind"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(kinds, ["AcceleratorProfile", "LLMDeployment", "WellLitPath"]);
}

#[test]
fn scopes_and_short_names_are_the_designed_ones() {
    let seen: Vec<(String, String, Vec<String>)> = llmd_crds::all()
        .into_iter()
        .map(|definition| {
            let names = definition.spec.names;
            (
                names.kind,
                definition.spec.scope,
                names.short_names.unwrap_or_default(),
            )
        })
        .collect();
    let wanted = [
        ("AcceleratorProfile", "Cluster", "accp"),
        ("LLMDeployment", "Namespaced", "llmd"),
        ("WellLitPath", "Cluster", "wlp"),
    ];
    assert_eq!(seen.len(), wanted.len());
    for ((kind, scope, short), wanted) in seen.iter().zip(wanted) {
        assert_eq!((kind.as_str(), scope.as_str(), short[0].as_str()), wanted);
    }
}

#[test]
fn no_field_has_a_default_or_is_nullable() {
    walk_specs(|path, schema| {
        assert!(
            schema.get("default").is_none(),
            "{path} has a default: a path could no longer fill it"
        );
        assert!(
            schema.get("nullable").is_none(),
            "{path} is nullable: has() would be true for null"
        );
    });
}

#[test]
fn every_list_string_and_map_is_bounded() {
    walk_specs(|path, schema| {
        if schema.get("x-kubernetes-int-or-string").is_some() {
            return;
        }
        match schema["type"].as_str() {
            Some("array") => assert!(schema.get("maxItems").is_some(), "{path} needs maxItems"),
            Some("string") => {
                let bounded = schema.get("maxLength").is_some() || schema.get("enum").is_some();
                assert!(bounded, "{path} needs maxLength or enum");
            }
            Some("object") if schema["additionalProperties"].is_object() => {
                assert!(
                    schema.get("maxProperties").is_some(),
                    "{path} needs maxProperties"
                );
            }
            Some("integer") => {
                let bounded = schema.get("minimum").is_some() && schema.get("maximum").is_some();
                assert!(bounded, "{path} needs a range");
            }
            _ => {}
        }
    });
}

#[test]
fn a_schema_is_structural() {
    walk_specs(|path, schema| {
        let typed = schema["type"].is_string() || schema.get("x-kubernetes-int-or-string").is_some();
        assert!(typed, "{path} has no type");
        let both = schema.get("properties").is_some() && schema.get("additionalProperties").is_some();
        assert!(!both, "{path} has properties beside additionalProperties");
        assert!(schema.get("$ref").is_none(), "{path} has a reference");
        let format = schema["format"].as_str().unwrap_or_default();
        assert!(
            !format.starts_with("uint"),
            "{path} has the format {format}, which OpenAPI does not know"
        );
    });
}

#[test]
fn lists_of_named_things_are_merged_by_name() {
    let mut seen = Vec::new();
    walk_specs(|path, schema| {
        let required = schema["items"]["required"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        // Two listeners of one Gateway have one name; Gateway API replaces the list as a whole too.
        if required.contains(&Value::from("name")) && !path.ends_with(".parentRefs") {
            assert_eq!(schema["x-kubernetes-list-type"], "map", "{path}");
            assert_eq!(
                schema["x-kubernetes-list-map-keys"],
                serde_json::json!(["name"]),
                "{path}"
            );
            seen.push(path.to_owned());
        }
    });
    assert!(seen.contains(&"LLMDeployment.pools".to_owned()), "{seen:?}");
}

#[test]
fn every_field_is_described() {
    walk_specs(|path, schema| {
        let entry = path.ends_with("[]") || path.ends_with("{}");
        assert!(
            entry || schema["description"].is_string(),
            "{path} has no description"
        );
    });
}

/// With a `null` in the serialised form `has()` is true and string functions fail.
#[test]
fn an_unset_field_is_not_serialised() {
    let values = [
        serde_json::to_value(LLMDeployment::default()).unwrap(),
        serde_json::to_value(WellLitPath::default()).unwrap(),
        serde_json::to_value(AcceleratorProfile::default()).unwrap(),
    ];
    for value in values {
        assert!(!value.to_string().contains("null"), "{value}");
    }
}

#[test]
fn an_unknown_field_is_refused_at_every_level() {
    let minimal = "metadata: {name: x}\napiVersion: llmd.dev/v1alpha1\nkind: LLMDeployment\n";
    for spec in [
        "spec: {modle: {}}",
        "spec: {model: {url: hf://a/b}}",
        "spec: {pools: [{name: p, replica: 1}]}",
        "spec: {router: {epp: {config: {inlin: {}}}}}",
        "spec: {rollout: {drian: 1s}}",
    ] {
        let outcome: Result<LLMDeployment, _> = serde_yaml::from_str(&format!("{minimal}{spec}"));
        let error = outcome.unwrap_err().to_string();
        assert!(error.contains("unknown field"), "{spec}: {error}");
    }
}
