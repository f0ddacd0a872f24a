//! Every CEL rule, once satisfied and once broken, with its field and reason.

use std::collections::BTreeSet;

use llmd_crds::{LLMDeployment, WellLitPath, broken_rules};
use serde::Deserialize;
use serde_json::Value;

/// One rule: a spec that satisfies it, one that breaks it, and what is said then.
#[derive(Deserialize)]
struct Case {
    right: String,
    wrong: String,
    field: String,
    reason: Option<String>,
    says: String,
}

fn cases() -> Vec<Case> {
    serde_yaml::from_str(include_str!("../rules.yaml")).unwrap()
}

const MODEL: &str = "model: {uri: 'hf://a/b'}";

fn deployment(name: &str, spec: &str) -> LLMDeployment {
    let spec = spec.replace("MODEL", MODEL);
    let text = format!(
        "{{apiVersion: llmd.dev/v1alpha1, kind: LLMDeployment, metadata: {{name: {name}}}, spec: {spec}}}"
    );
    serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn path(template: &str) -> WellLitPath {
    let text = format!(
        "{{apiVersion: llmd.dev/v1alpha1, kind: WellLitPath, metadata: {{name: x}}, \
         spec: {{version: v1, template: {template}}}}}"
    );
    serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn every_rule_of_a_deployment_holds_and_breaks() {
    for case in &cases() {
        deployment("x", &case.right)
            .validate_cel()
            .unwrap_or_else(|errors| panic!("{} is refused: {errors}", case.right));
        let errors = deployment("x", &case.wrong)
            .validate_cel()
            .expect_err(&case.wrong)
            .into_vec();
        let error = errors
            .iter()
            .find(|error| error.field_path.trim_start_matches('.') == case.field)
            .unwrap_or_else(|| panic!("{}: no error at {}: {errors:?}", case.wrong, case.field));
        assert!(
            error.message.contains(&case.says),
            "{}: {}",
            case.wrong,
            error.message
        );
        assert_eq!(error.reason, case.reason, "{}", case.wrong);
        assert_eq!(errors.len(), 1, "one cause, one error: {errors:?}");
    }
}

#[test]
fn a_name_leaves_room_for_the_suffixes_of_children() {
    let longest = "x".repeat(40);
    deployment(&longest, "{MODEL}").validate_cel().unwrap();
    let errors = deployment(&format!("{longest}x"), "{MODEL}")
        .validate_cel()
        .unwrap_err();
    assert!(errors[0].message.contains("at most 40 characters"), "{errors}");
}

#[test]
fn a_path_names_no_path() {
    path("{engine: {type: Simulator}}").validate_cel().unwrap();
    let errors = path("{path: simulated}").validate_cel().unwrap_err();
    assert_eq!(errors[0].field_path.trim_start_matches('.'), "spec.template");
    assert!(errors[0].message.contains("cannot name a path"), "{errors}");
}

/// The rules that are compiled once say the same as those that the derive compiles each time.
#[test]
fn compiled_rules_say_the_same() {
    for case in &cases() {
        assert!(
            broken_rules(&deployment("x", &case.right)).is_empty(),
            "{}",
            case.right
        );
        let wrong = deployment("x", &case.wrong);
        assert_eq!(
            broken_rules(&wrong),
            wrong.validate_cel().unwrap_err().into_vec(),
            "{}",
            case.wrong
        );
    }
}

/// A rule that no case breaks is not tested: this fails when one is added without a case.
#[test]
fn no_rule_is_left_out() {
    let mut messages = BTreeSet::new();
    for definition in llmd_crds::all() {
        collect(&serde_json::to_value(&definition).unwrap(), &mut messages);
    }
    let cases = cases();
    let elsewhere = [
        "metadata.name: at most 40 characters",
        "a path cannot name a path",
    ];
    let says = cases.iter().map(|case| case.says.as_str()).chain(elsewhere);
    let says: Vec<&str> = says.collect();
    let untested: Vec<&String> = messages
        .iter()
        .filter(|message| !says.iter().any(|says| message.contains(says)))
        .collect();
    assert!(untested.is_empty(), "{untested:?}");
    assert!(messages.len() >= 14, "rules disappeared: {messages:?}");
}

fn collect(value: &Value, messages: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for rule in map
                .get("x-kubernetes-validations")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                messages.insert(rule["message"].as_str().unwrap().to_owned());
            }
            map.values().for_each(|value| collect(value, messages));
        }
        Value::Array(items) => items.iter().for_each(|value| collect(value, messages)),
        _ => {}
    }
}
