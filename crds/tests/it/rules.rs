//! Every CEL rule, once satisfied and once broken, with its field and reason.

use std::collections::BTreeSet;

use llmd_crds::{LLMDeployment, WellLitPath, broken_rules};
use serde_json::Value;

/// One rule: a spec that satisfies it, one that breaks it, and what is said then.
struct Case {
    right: &'static str,
    wrong: &'static str,
    field: &'static str,
    reason: Option<&'static str>,
    says: &'static str,
}

const MODEL: &str = "model: {uri: 'hf://a/b'}";

const SPEC_CASES: &[Case] = &[
    Case {
        right: "{model: {uri: 'hf://a/b'}}",
        wrong: "{path: simulated}",
        field: "spec.model",
        reason: Some("FieldValueRequired"),
        says: "spec.model is required",
    },
    Case {
        right: "{model: {name: a/b}}",
        wrong: "{model: {revision: main}}",
        field: "spec.model.uri",
        reason: Some("FieldValueRequired"),
        says: "give a uri",
    },
    Case {
        right: "{model: {uri: 'pvc://claim/dir/model'}}",
        wrong: "{model: {uri: 's3://bucket/model'}}",
        field: "spec.model.uri",
        reason: Some("FieldValueInvalid"),
        says: "hf://org/name or pvc://claim/path",
    },
    Case {
        right: "{MODEL, engine: {env: [{name: A, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]}}",
        wrong: "{MODEL, engine: {env: [{name: A, value: v, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]}}",
        field: "spec.engine.env[0].value",
        reason: Some("FieldValueInvalid"),
        says: "either value or valueFrom",
    },
    Case {
        right: "{MODEL, engine: {env: [{name: A, valueFrom: {secretKeyRef: {name: s, key: k}}}]}}",
        wrong: "{MODEL, engine: {env: [{name: A, valueFrom: {secretKeyRef: {name: s, key: k}, configMapKeyRef: {name: s, key: k}}}]}}",
        field: "spec.engine.env[0].valueFrom",
        reason: Some("FieldValueInvalid"),
        says: "exactly one of",
    },
    Case {
        right: "{MODEL, router: {mode: Gateway, gateway: {parentRefs: [{name: g}]}}}",
        wrong: "{MODEL, router: {mode: Gateway}}",
        field: "spec.router.gateway",
        reason: Some("FieldValueInvalid"),
        says: "goes with mode Gateway",
    },
    Case {
        right: "{MODEL, router: {mode: Standalone, proxy: {type: Envoy}}}",
        wrong: "{MODEL, router: {mode: Gateway, gateway: {parentRefs: [{name: g}]}, proxy: {type: Envoy}}}",
        field: "spec.router.proxy",
        reason: Some("FieldValueForbidden"),
        says: "the gateway is the proxy",
    },
    Case {
        right: "{model: {uri: 'hf://a/b', revision: main}}",
        wrong: "{model: {uri: 'pvc://claim/dir', revision: main}}",
        field: "spec.model.revision",
        reason: Some("FieldValueForbidden"),
        says: "a revision belongs to a hf:// model",
    },
    Case {
        right: "{MODEL, engine: {args: {max-model-len: '8192'}}}",
        wrong: "{MODEL, engine: {args: {port: '1'}}}",
        field: "spec.engine.args",
        reason: Some("FieldValueForbidden"),
        says: "set by the operator",
    },
    Case {
        right: "{MODEL, pools: [{name: p, engine: {args: {data: '1'}}}]}",
        wrong: "{MODEL, pools: [{name: p, engine: {args: {data-parallel-size: '2'}}}]}",
        field: "spec.pools[0].engine.args",
        reason: Some("FieldValueForbidden"),
        says: "set by the operator",
    },
    Case {
        right: "{MODEL, engine: {args: {seed: '1'}}}",
        wrong: "{MODEL, engine: {args: {--seed: '1'}}}",
        field: "spec.engine.args",
        reason: Some("FieldValueInvalid"),
        says: "without its leading dashes",
    },
    Case {
        right: "{MODEL, router: {epp: {flags: {v: '4'}}}}",
        wrong: "{MODEL, router: {epp: {flags: {pool-name: x}}}}",
        field: "spec.router.epp.flags",
        reason: Some("FieldValueForbidden"),
        says: "set by the operator",
    },
    Case {
        right: "{MODEL, router: {proxy: {type: Envoy, image: x}}}",
        wrong: "{MODEL, router: {proxy: {type: Builtin, image: x}}}",
        field: "spec.router.proxy.image",
        reason: Some("FieldValueForbidden"),
        says: "no image of its own",
    },
    Case {
        right: "{MODEL, router: {proxy: {failOpen: true}}}",
        wrong: "{MODEL, router: {proxy: {type: Builtin, failOpen: true}}}",
        field: "spec.router.proxy.failOpen",
        reason: Some("FieldValueForbidden"),
        says: "cannot outlive the Endpoint Picker",
    },
    Case {
        right: "{MODEL, rollout: {maxSurge: 0, maxUnavailable: 1}}",
        wrong: "{MODEL, rollout: {maxSurge: 0, maxUnavailable: '0%'}}",
        field: "spec.rollout.maxUnavailable",
        reason: Some("FieldValueInvalid"),
        says: "cannot both be 0",
    },
    Case {
        right: "{MODEL, scheduling: {tolerations: [{key: k, operator: Equal, value: v}]}}",
        wrong: "{MODEL, scheduling: {tolerations: [{key: k, operator: Exists, value: v}]}}",
        field: "spec.scheduling.tolerations[0].value",
        reason: Some("FieldValueForbidden"),
        says: "operator Exists takes no value",
    },
    Case {
        right: "{MODEL, commonMetadata: {labels: {team.example/x: y}}}",
        wrong: "{MODEL, commonMetadata: {labels: {llm-d.ai/role: y}}}",
        field: "spec.commonMetadata.labels",
        reason: Some("FieldValueForbidden"),
        says: "this prefix is reserved",
    },
    Case {
        right: "{MODEL, commonMetadata: {annotations: {team.example/x: y}}}",
        wrong: "{MODEL, commonMetadata: {annotations: {argocd.argoproj.io/sync-wave: '1'}}}",
        field: "spec.commonMetadata.annotations",
        reason: Some("FieldValueForbidden"),
        says: "would adopt the objects",
    },
];

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
    for case in SPEC_CASES {
        deployment("x", case.right)
            .validate_cel()
            .unwrap_or_else(|errors| panic!("{} is refused: {errors}", case.right));
        let errors = deployment("x", case.wrong)
            .validate_cel()
            .expect_err(case.wrong)
            .into_vec();
        let error = errors
            .iter()
            .find(|error| error.field_path.trim_start_matches('.') == case.field)
            .unwrap_or_else(|| panic!("{}: no error at {}: {errors:?}", case.wrong, case.field));
        assert!(
            error.message.contains(case.says),
            "{}: {}",
            case.wrong,
            error.message
        );
        assert_eq!(error.reason.as_deref(), case.reason, "{}", case.wrong);
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
    for case in SPEC_CASES {
        assert!(
            broken_rules(&deployment("x", case.right)).is_empty(),
            "{}",
            case.right
        );
        let wrong = deployment("x", case.wrong);
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
    let elsewhere = [
        "metadata.name: at most 40 characters",
        "a path cannot name a path",
    ];
    let says = SPEC_CASES.iter().map(|case| case.says).chain(elsewhere);
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
