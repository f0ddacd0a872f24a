//! No field is accepted and ignored: each field of the schema changes what is rendered, or is refused when wrong.

mod together;

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::{Documents, document, lines};

/// A field and two specs that differ in it only. `MODEL` stands for a model that needs no more.
struct Flip {
    field: &'static str,
    without: &'static str,
    with: &'static str,
}

const fn flip(field: &'static str, without: &'static str, with: &'static str) -> Flip {
    Flip { field, without, with }
}

const MODEL: &str = "model: {uri: 'hf://a/b'}";

/// Supplied with every spec: a path in two versions, and a profile.
const SUPPLIED: &str = "
---
apiVersion: llmd.dev/v1alpha1
kind: WellLitPath
metadata: {name: two}
spec: {version: v1, template: {engine: {type: Simulator}, pools: [{name: a}], router: CONFIG}}
---
apiVersion: llmd.dev/v1alpha1
kind: WellLitPath
metadata: {name: two}
spec: {version: v2, template: {engine: {type: Simulator}, pools: [{name: b}], router: CONFIG}}
---
apiVersion: llmd.dev/v1alpha1
kind: AcceleratorProfile
metadata: {name: h100}
spec: {resourceName: nvidia.com/gpu, acceleratorsPerNode: 8, nodeSelector: {gpu: h100}}
";
const CONFIG: &str = "{epp: {config: {inline: {apiVersion: llm-d.ai/v1alpha1, kind: EndpointPickerConfig, \
                      plugins: [{type: queue-scorer}]}}}}";

const GATEWAY: &str = "{MODEL, router: {mode: Gateway, gateway: {parentRefs: [{name: g}]}}}";

const FLIPS: &[Flip] = &[
    flip("path", "{MODEL}", "{MODEL, path: simulated}"),
    flip(
        "pathVersion",
        "{MODEL, path: two, pathVersion: v1}",
        "{MODEL, path: two, pathVersion: v2}",
    ),
    flip(
        "pools[].accelerator.deviceClassName",
        "{MODEL, pools: [{name: decode}]}",
        "{MODEL, pools: [{name: decode, accelerator: {deviceClassName: gpu.nvidia.com}}]}",
    ),
    flip(
        "engine.type",
        "{MODEL, pools: [{name: decode, accelerator: {vendor: None}}]}",
        "{MODEL, pools: [{name: decode, accelerator: {vendor: None}}], engine: {type: Simulator}}",
    ),
    flip(
        "pools[].engine.type",
        "{MODEL, pools: [{name: decode, accelerator: {vendor: None}}]}",
        "{MODEL, pools: [{name: decode, accelerator: {vendor: None}, engine: {type: Simulator}}]}",
    ),
    flip("replicas", "{MODEL}", "{MODEL, replicas: 2}"),
    flip("stopped", "{MODEL}", "{MODEL, stopped: true}"),
    flip("model.uri", "{MODEL}", "{model: {uri: 'hf://a/c'}}"),
    flip("model.name", "{MODEL}", "{model: {uri: 'hf://a/b', name: c}}"),
    flip(
        "model.aliases",
        "{MODEL}",
        "{model: {uri: 'hf://a/b', aliases: [c]}}",
    ),
    flip(
        "model.revision",
        "{MODEL}",
        "{model: {uri: 'hf://a/b', revision: main}}",
    ),
    flip(
        "model.tokenSecretRef.name",
        "{MODEL}",
        "{model: {uri: 'hf://a/b', tokenSecretRef: {name: s}}}",
    ),
    flip(
        "model.storage.claimName",
        "{model: {uri: 'hf://a/b', storage: {claimName: one}}}",
        "{model: {uri: 'hf://a/b', storage: {claimName: two}}}",
    ),
    flip(
        "model.storage.readOnly",
        "{model: {uri: 'hf://a/b', storage: {claimName: one}}}",
        "{model: {uri: 'hf://a/b', storage: {claimName: one, readOnly: true}}}",
    ),
    flip(
        "model.tokenSecretRef.key",
        "{model: {uri: 'hf://a/b', tokenSecretRef: {name: s}}}",
        "{model: {uri: 'hf://a/b', tokenSecretRef: {name: s, key: k}}}",
    ),
    flip(
        "model.trustRemoteCode",
        "{MODEL}",
        "{model: {uri: 'hf://a/b', trustRemoteCode: true}}",
    ),
    flip("pools[].name", "{MODEL}", "{MODEL, pools: [{name: other}]}"),
    flip(
        "pools[].replicas",
        "{MODEL}",
        "{MODEL, pools: [{name: decode, replicas: 3}]}",
    ),
    flip(
        "pools[].parallelism.tensor",
        "{MODEL}",
        "{MODEL, pools: [{name: decode, parallelism: {tensor: 4}}]}",
    ),
    flip(
        "pools[].accelerator.vendor",
        "{MODEL}",
        "{MODEL, pools: [{name: decode, accelerator: {vendor: Amd}}]}",
    ),
    flip(
        "pools[].accelerator.profile",
        "{MODEL}",
        "{MODEL, pools: [{name: decode, accelerator: {profile: h100}}]}",
    ),
    flip(
        "pools[].resources.requests",
        "{MODEL}",
        "{MODEL, pools: [{name: decode, resources: {requests: {memory: 64Gi}}}]}",
    ),
    flip(
        "pools[].resources.limits",
        "{MODEL}",
        "{MODEL, pools: [{name: decode, resources: {limits: {memory: 256Gi}}}]}",
    ),
    flip(
        "router.epp.image",
        "{MODEL}",
        "{MODEL, router: {epp: {image: i}}}",
    ),
    flip(
        "router.epp.resources.requests",
        "{MODEL}",
        "{MODEL, router: {epp: {resources: {requests: {cpu: '2'}}}}}",
    ),
    flip(
        "router.epp.resources.limits",
        "{MODEL}",
        "{MODEL, router: {epp: {resources: {limits: {cpu: '9'}}}}}",
    ),
    flip(
        "router.epp.flags",
        "{MODEL}",
        "{MODEL, router: {epp: {flags: {v: '4'}}}}",
    ),
    flip("router.epp.config.inline", "{MODEL}", "{MODEL, router: CONFIG}"),
    flip(
        "router.failureMode",
        "{MODEL}",
        "{MODEL, router: {failureMode: FailClose}}",
    ),
    flip("router.mode", "{MODEL}", GATEWAY),
    flip(
        "router.gateway.parentRefs[].name",
        GATEWAY,
        "{MODEL, router: {mode: Gateway, gateway: {parentRefs: [{name: h}]}}}",
    ),
    flip(
        "router.gateway.parentRefs[].namespace",
        GATEWAY,
        "{MODEL, router: {mode: Gateway, gateway: {parentRefs: [{name: g, namespace: n}]}}}",
    ),
    flip(
        "router.gateway.parentRefs[].sectionName",
        GATEWAY,
        "{MODEL, router: {mode: Gateway, gateway: {parentRefs: [{name: g, sectionName: s}]}}}",
    ),
    flip(
        "router.gateway.hostnames",
        GATEWAY,
        "{MODEL, router: {mode: Gateway, gateway: {parentRefs: [{name: g}], hostnames: [h.example]}}}",
    ),
    flip(
        "router.gateway.match",
        GATEWAY,
        "{MODEL, router: {mode: Gateway, gateway: {parentRefs: [{name: g}], match: ModelHeader}}}",
    ),
    flip(
        "router.gateway.timeout",
        GATEWAY,
        "{MODEL, router: {mode: Gateway, gateway: {parentRefs: [{name: g}], timeout: 0s}}}",
    ),
    flip(
        "router.proxy.type",
        "{MODEL}",
        "{MODEL, router: {proxy: {type: Builtin}}}",
    ),
    flip(
        "router.proxy.image",
        "{MODEL}",
        "{MODEL, router: {proxy: {image: i}}}",
    ),
    flip(
        "router.proxy.failOpen",
        "{MODEL}",
        "{MODEL, router: {proxy: {failOpen: false}}}",
    ),
    flip(
        "security.imagePullSecrets",
        "{MODEL}",
        "{MODEL, security: {imagePullSecrets: [s]}}",
    ),
    flip("rollout.maxSurge", "{MODEL}", "{MODEL, rollout: {maxSurge: 1}}"),
    flip(
        "rollout.maxUnavailable",
        "{MODEL}",
        "{MODEL, rollout: {maxUnavailable: 50%}}",
    ),
    flip("rollout.drain", "{MODEL}", "{MODEL, rollout: {drain: 2m}}"),
    flip(
        "commonMetadata.labels",
        "{MODEL}",
        "{MODEL, commonMetadata: {labels: {a: b}}}",
    ),
    flip(
        "commonMetadata.annotations",
        "{MODEL}",
        "{MODEL, commonMetadata: {annotations: {a: b}}}",
    ),
];

/// Fields of an engine, below `engine` and below `pools[].engine`.
const ENGINE_FLIPS: &[Flip] = &[
    flip("image", "{}", "{image: i}"),
    flip("imagePullPolicy", "{}", "{imagePullPolicy: Always}"),
    flip("args", "{}", "{args: {seed: '1'}}"),
    flip(
        "removeArgs",
        "{}",
        "{removeArgs: [disable-access-log-for-endpoints]}",
    ),
    flip("extraArgs", "{}", "{extraArgs: [--seed=1]}"),
    flip(
        "env[].name",
        "{env: [{name: A, value: v}]}",
        "{env: [{name: B, value: v}]}",
    ),
    flip(
        "env[].value",
        "{env: [{name: A, value: v}]}",
        "{env: [{name: A, value: w}]}",
    ),
    flip(
        "env[].valueFrom.secretKeyRef.name",
        "{env: [{name: A, valueFrom: {secretKeyRef: {name: s, key: k}}}]}",
        "{env: [{name: A, valueFrom: {secretKeyRef: {name: t, key: k}}}]}",
    ),
    flip(
        "env[].valueFrom.secretKeyRef.key",
        "{env: [{name: A, valueFrom: {secretKeyRef: {name: s, key: k}}}]}",
        "{env: [{name: A, valueFrom: {secretKeyRef: {name: s, key: l}}}]}",
    ),
    flip(
        "env[].valueFrom.secretKeyRef.optional",
        "{env: [{name: A, valueFrom: {secretKeyRef: {name: s, key: k}}}]}",
        "{env: [{name: A, valueFrom: {secretKeyRef: {name: s, key: k, optional: true}}}]}",
    ),
    flip(
        "env[].valueFrom.configMapKeyRef.name",
        "{env: [{name: A, valueFrom: {configMapKeyRef: {name: s, key: k}}}]}",
        "{env: [{name: A, valueFrom: {configMapKeyRef: {name: t, key: k}}}]}",
    ),
    flip(
        "env[].valueFrom.configMapKeyRef.key",
        "{env: [{name: A, valueFrom: {configMapKeyRef: {name: s, key: k}}}]}",
        "{env: [{name: A, valueFrom: {configMapKeyRef: {name: s, key: l}}}]}",
    ),
    flip(
        "env[].valueFrom.configMapKeyRef.optional",
        "{env: [{name: A, valueFrom: {configMapKeyRef: {name: s, key: k}}}]}",
        "{env: [{name: A, valueFrom: {configMapKeyRef: {name: s, key: k, optional: true}}}]}",
    ),
    flip(
        "env[].valueFrom.fieldRef.fieldPath",
        "{env: [{name: A, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]}",
        "{env: [{name: A, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}]}",
    ),
    flip("startupTimeout", "{}", "{startupTimeout: 30m}"),
];

/// Fields of a placement, below `scheduling` and below `pools[].scheduling`.
const SCHEDULING_FLIPS: &[Flip] = &[
    flip("nodeSelector", "{}", "{nodeSelector: {a: b}}"),
    flip(
        "tolerations[].key",
        "{tolerations: [{operator: Exists}]}",
        "{tolerations: [{operator: Exists, key: a}]}",
    ),
    flip(
        "tolerations[].operator",
        "{tolerations: [{key: a}]}",
        "{tolerations: [{key: a, operator: Exists}]}",
    ),
    flip(
        "tolerations[].value",
        "{tolerations: [{key: a}]}",
        "{tolerations: [{key: a, value: b}]}",
    ),
    flip(
        "tolerations[].effect",
        "{tolerations: [{key: a}]}",
        "{tolerations: [{key: a, effect: NoExecute}]}",
    ),
    flip("priorityClassName", "{}", "{priorityClassName: p}"),
];

/// Fields that state what another field implies: a right value changes nothing, a wrong one is refused.
const CHECKED: &[Flip] = &[
    flip(
        "pools[].accelerator.count",
        "{MODEL, pools: [{name: decode, accelerator: {count: 2}}]}",
        "{MODEL, pools: [{name: decode, accelerator: {count: 3}}]}",
    ),
    // what it changes is compared with the guide, with the picker that it needs
    flip(
        "kv.offload.peerToPeer",
        "{MODEL, kv: {offload: {connector: LMCache, cpu: 8Gi}}}",
        "{MODEL, kv: {offload: {connector: LMCache, cpu: 8Gi, peerToPeer: true}}}",
    ),
];

/// The table with the shared parts in both their places: field, spec without, spec with.
fn flips() -> Vec<(String, String, String)> {
    let mut all: Vec<(String, String, String)> = FLIPS
        .iter()
        .chain(together::FLIPS)
        .map(|flip| {
            (
                flip.field.to_owned(),
                flip.without.to_owned(),
                flip.with.to_owned(),
            )
        })
        .collect();
    for (part, table) in [("engine", ENGINE_FLIPS), ("scheduling", SCHEDULING_FLIPS)] {
        for flip in table {
            let top = |value: &str| format!("{{MODEL, {part}: {value}}}");
            let pool = |value: &str| format!("{{MODEL, pools: [{{name: decode, {part}: {value}}}]}}");
            all.push((
                format!("{part}.{}", flip.field),
                top(flip.without),
                top(flip.with),
            ));
            all.push((
                format!("pools[].{part}.{}", flip.field),
                pool(flip.without),
                pool(flip.with),
            ));
        }
    }
    all
}

fn documents(spec: &str) -> Documents {
    let spec = spec.replace("MODEL", MODEL).replace("CONFIG", CONFIG);
    Documents::read(&format!(
        "{}{}",
        document(&spec),
        SUPPLIED.replace("CONFIG", CONFIG)
    ))
}

#[test]
fn every_field_changes_what_is_rendered() {
    for (field, without, with) in flips() {
        let (one, two) = (documents(&without).render(0), documents(&with).render(0));
        assert_ne!(one.to_yaml(), two.to_yaml(), "{field} is accepted and ignored");
    }
}

#[test]
fn a_field_that_is_only_checked_is_refused_when_it_is_wrong() {
    for flip in CHECKED {
        documents(flip.without).render(0);
        let errors = documents(flip.with).validate(0).expect_err(flip.field);
        let field = flip.field.replace("[]", "[0]");
        assert!(
            errors.iter().any(|error| error.field.ends_with(&field)),
            "{field}: {}",
            lines(&errors)
        );
    }
}

/// Keeps the table complete: a new field of the schema needs a line.
#[test]
fn no_field_of_the_schema_is_left_out() {
    let definitions = llmd_crds::all();
    let definition = definitions
        .iter()
        .find(|one| one.spec.names.kind == "LLMDeployment")
        .unwrap();
    let schema = definition.spec.versions[0]
        .schema
        .as_ref()
        .unwrap()
        .open_api_v3_schema
        .as_ref();
    let schema = serde_json::to_value(schema.unwrap()).unwrap();
    let mut fields = BTreeSet::new();
    leaves("", &schema["properties"]["spec"], &mut fields);
    let flips: Vec<(String, String, String)> = flips();
    let tested: BTreeSet<String> = flips
        .into_iter()
        .map(|flip| flip.0)
        .chain(CHECKED.iter().map(|flip| flip.field.to_owned()))
        .collect();
    let missing: Vec<&String> = fields.difference(&tested).collect();
    let gone: Vec<&String> = tested.difference(&fields).collect();
    assert!(
        missing.is_empty() && gone.is_empty(),
        "untested: {missing:?}, not in the schema: {gone:?}"
    );
}

/// Paths of all fields that hold a value; maps and lists of plain values are one field.
fn leaves(path: &str, schema: &Value, found: &mut BTreeSet<String>) {
    let children = schema["properties"].as_object();
    let items = schema["items"]["properties"].as_object();
    if children.is_none() && items.is_none() {
        found.insert(path.to_owned());
    }
    for (name, child) in children.into_iter().flatten() {
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        leaves(&path, child, found);
    }
    for (name, child) in items.into_iter().flatten() {
        leaves(&format!("{path}[].{name}"), child, found);
    }
}

/// Fields of an AcceleratorProfile, which a pool reads by name.
#[test]
fn every_field_of_an_accelerator_profile_counts() {
    let with = |profile: &str| {
        let text = format!(
            "{}\n---\n{{apiVersion: llmd.dev/v1alpha1, kind: AcceleratorProfile, metadata: {{name: p}}, spec: {profile}}}",
            document(&format!(
                "{{{MODEL}, pools: [{{name: decode, accelerator: {{profile: p}}}}]}}"
            ))
        );
        Documents::read(&text)
    };
    let base = with("{resourceName: a.b/c, acceleratorsPerNode: 2}")
        .render(0)
        .to_yaml();
    for other in [
        "{resourceName: a.b/d, acceleratorsPerNode: 2}",
        "{resourceName: a.b/c, acceleratorsPerNode: 2, nodeSelector: {a: b}}",
        "{resourceName: a.b/c, acceleratorsPerNode: 2, tolerations: [{operator: Exists}]}",
    ] {
        assert_ne!(with(other).render(0).to_yaml(), base, "{other}");
    }
    let errors = with("{resourceName: a.b/c, acceleratorsPerNode: 1}")
        .validate(0)
        .unwrap_err();
    assert!(
        lines(&errors).contains("needs 2 accelerators"),
        "{}",
        lines(&errors)
    );
}
