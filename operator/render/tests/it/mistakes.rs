//! A wrong document is refused with the field, the value and the nearest right one.

use llmd_render::decode;

use crate::support::{Documents, document, lines};

/// Spec → parts of the one line that is said.
const SPECS: &[(&str, &[&str])] = &[
    (
        "{path: optimised-baseline, model: {uri: 'hf://a/b'}}",
        &[
            "spec.path",
            "\"optimised-baseline\"",
            "PathNotFound",
            "did you mean \"optimized-baseline\"?",
        ],
    ),
    (
        "{path: simulated, pathVersion: v7, model: {name: m}}",
        &["spec.pathVersion", "\"v7\"", "known: v1"],
    ),
    ("{path: simulated}", &["spec.model", "required"]),
    (
        "{model: {name: m}}",
        &["spec.model.uri", "an engine needs weights"],
    ),
    (
        "{model: {uri: 'hf://a/b', aliases: [c]}, engine: {type: Sglang}}",
        &["spec.model.aliases", "SGLang serves one name"],
    ),
    (
        "{model: {uri: 'hf://a/b'}, engine: {type: Sglang}, kv: {offload: {connector: LMCache, cpu: 1Gi}}}",
        &["spec.kv.offload.connector", "use Native"],
    ),
    (
        "{model: {uri: 'hf://a/b'}, engine: {type: Sglang}, kv: {offload: {cpu: 1Gi, filesystem: {claimName: c}}}}",
        &["spec.kv.offload.filesystem", "not rendered for SGLang"],
    ),
    (
        "{path: prefill-decode, model: {uri: 'hf://a/b'}, engine: {type: Sglang}, kv: {transfer: {failurePolicy: Fail}}}",
        &["spec.kv.transfer.failurePolicy", "leave it out"],
    ),
    (
        "{path: encode-disaggregation, model: {uri: 'hf://a/b'}, engine: {type: Sglang}}",
        &["spec.pools[encode].role", "use type Vllm"],
    ),
    (
        "{model: {uri: 'hf://a/b'}, engine: {type: Sglang}, pools: [{name: decode, parallelism: {data: 2}}]}",
        &["spec.pools[0].parallelism.data", "raise replicas"],
    ),
    (
        "{model: {uri: 'hf://a/b'}, engine: {type: Sglang}, pools: [{name: decode, accelerator: {vendor: Google}}]}",
        &["spec.pools[0].accelerator.vendor", "engine.image"],
    ),
    (
        "{model: {uri: 'hf://a/b'}, engine: {type: Sglang, extraArgs: ['--disaggregation-mode=decode']}}",
        &["spec.engine.extraArgs", "set by the operator"],
    ),
    (
        "{model: {uri: 'hf://a/b'}, kv: {offload: {connector: Mooncake}}}",
        &["spec.kv.offload.mooncake", "master"],
    ),
    (
        "{model: {uri: 'hf://a/b'}, kv: {offload: {connector: Mooncake, mooncake: {master: 'a:99999'}}}}",
        &["spec.kv.offload.mooncake.master", "65535"],
    ),
    (
        "{model: {uri: 'hf://a/b'}, kv: {offload: {cpu: 1Gi, mooncake: {master: 'a:1'}}}}",
        &["spec.kv.offload.mooncake", "connector Mooncake"],
    ),
    (
        "{model: {uri: 'hf://a/b'}, kv: {offload: {cpu: 1Gi, peerToPeer: true}}}",
        &["spec.router.epp.config.inline", "p2p-source-producer"],
    ),
    (
        "{path: p2p-kv-cache-sharing, model: {uri: 'hf://a/b'}, kv: {offload: {peerToPeer: false}}}",
        &["spec.router.epp.config.inline", "set kv.offload.peerToPeer"],
    ),
    (
        "{path: p2p-kv-cache-sharing, model: {uri: 'hf://a/b'}, pools: [{name: more, parallelism: {tensor: 2}}]}",
        &["spec.pools[0].parallelism.tensor", "same tensor and pipeline"],
    ),
    (
        "{path: p2p-kv-cache-sharing, model: {uri: 'hf://a/b'}, pools: [{name: decode, parallelism: {tensor: 8, pipeline: 2}}]}",
        &["spec.pools[0].parallelism", "one pod is an engine"],
    ),
    (
        "{model: {uri: 'hf://a/b'}, pools: [{name: decode, parallelism: {tensor: 8, pipeline: 2, data: 2}}]}",
        &["spec.pools[0].parallelism.pipeline", "not both"],
    ),
    (
        "{path: prefill-decode, model: {uri: 'hf://a/b'}, pools: [{name: decode, parallelism: {tensor: 8, pipeline: 2}}]}",
        &["spec.pools[0].parallelism.pipeline", "stay in one pod"],
    ),
    (
        "{path: simulated, model: {name: m}, pools: [{name: decode, parallelism: {pipeline: 2}}]}",
        &["spec.pools[0].parallelism.pipeline", "no layers"],
    ),
    (
        "{model: {uri: 'hf://a/b'}, pools: [{name: decode, accelerator: {vendor: Cpu, deviceClassName: c}}]}",
        &["spec.pools[0].accelerator.deviceClassName", "leave out one"],
    ),
    (
        "{path: prefill-decode, model: {uri: 'hf://a/b'}, kv: {transfer: {network: {resourceName: a/b, matchAttribute: c/d}}}}",
        &["spec.kv.transfer.network.matchAttribute", "give deviceClassName"],
    ),
    (
        "{path: prefill-decode, model: {uri: 'hf://a/b'}, kv: {transfer: {network: {deviceClassName: c, matchAttribute: c/d}}}}",
        &[
            "spec.pools[decode].accelerator.deviceClassName",
            "claim the accelerators",
        ],
    ),
    (
        "{path: prefill-decode, model: {uri: 'hf://a/b'}, kv: {transfer: {network: {deviceClassName: c, matchAttribute: c/d, count: 2}}}}",
        &["spec.kv.transfer.network.count", "leave it out"],
    ),
    (
        "{model: {uri: 'hf://a'}}",
        &["spec.model.uri", "hf://org/name or pvc://claim/path"],
    ),
    (
        "{model: {uri: 'pvc://claim/a/../b'}}",
        &["spec.model.uri", "'..'"],
    ),
    (
        "{model: {uri: 'hf://a/b'}, engine: {extraArgs: [--seed=1, --served_model_name=x]}}",
        &[
            "spec.engine.extraArgs",
            "\"--served_model_name=x\"",
            "set by the operator",
        ],
    ),
    (
        "{model: {uri: 'hf://a/b'}, engine: {env: [{name: A}]}}",
        &["spec.engine.env[0].value", "either value or valueFrom"],
    ),
    (
        "{model: {uri: 'hf://a/b'}, engine: {env: [{name: A, valueFrom: {fieldRef: {fieldPath: spec.hostNetwork}}}]}}",
        &[
            "spec.engine.env[0].valueFrom.fieldRef.fieldPath",
            "\"spec.hostNetwork\"",
        ],
    ),
    (
        "{model: {uri: 'hf://a/b'}, engine: {env: [{name: A, valueFrom: {secretKeyRef: {name: ../other/s, key: k}}}]}}",
        &["spec.engine.env[0].valueFrom.secretKeyRef.name"],
    ),
    (
        "{model: {uri: 'hf://a/b'}, router: {mode: Gateway}}",
        &["spec.router.gateway", "parentRefs"],
    ),
    (
        "{model: {uri: 'hf://a/b'}, router: {gateway: {parentRefs: [{name: g}]}}}",
        &["spec.router.gateway", "goes with mode Gateway"],
    ),
    (
        "{model: {uri: 'hf://a/b'}, router: {mode: Gateway, gateway: {parentRefs: [{name: g}]}, proxy: {type: Envoy}}}",
        &["spec.router.proxy", "the gateway is the proxy"],
    ),
    (
        "{model: {uri: 'hf://a/b'}, router: {mode: Gateway, gateway: {parentRefs: [{name: g}], timeout: 1w}}}",
        &["spec.router.gateway.timeout", "\"1w\""],
    ),
    (
        "{model: {uri: 'hf://a/b'}, router: {mode: Gateway, gateway: {parentRefs: []}}}",
        &["spec.router.gateway.parentRefs"],
    ),
    (
        "{model: {uri: 'hf://a/b'}, replicas: -1}",
        &["spec.replicas", "at least 0"],
    ),
    (
        "{model: {uri: 'hf://a/b'}, pools: [{name: Decode}]}",
        &["spec.pools[0].name", "\"Decode\""],
    ),
    (
        "{model: {uri: 'hf://a/b'}, pools: [{name: epp}]}",
        &["spec.pools[0].name", "taken by the router"],
    ),
    // a pool of the path has no place in the author's list
    (
        "{model: {uri: 'hf://a/b'}, engine: {startupTimeout: 48h}}",
        &["spec.engine.startupTimeout", "\"48h\"", "from 1s to 24h"],
    ),
    (
        "{model: {uri: 'hf://a/b'}, pools: [{name: decode}, {name: decode}]}",
        &["spec.pools[1].name", "twice"],
    ),
    (
        "{model: {uri: 'hf://a/b'}, pools: [{name: decode, accelerator: {profile: h100}}]}",
        &[
            "spec.pools[0].accelerator.profile",
            "\"h100\"",
            "no such AcceleratorProfile",
        ],
    ),
    (
        "{model: {uri: 'hf://a/b'}, pools: [{name: decode, accelerator: {count: 4}}]}",
        &[
            "spec.pools[0].accelerator.count",
            "\"4\"",
            "parallelism.tensor, which is 2",
        ],
    ),
    (
        "{model: {uri: 'hf://a/b'}, pools: [{name: decode, resources: {requests: {memory: 96GB}}}]}",
        &[
            "spec.pools[0].resources.requests.memory",
            "\"96GB\"",
            "no quantity",
        ],
    ),
    (
        "{model: {uri: 'hf://a/b'}, pools: [{name: decode, resources: {requests: {cpu: '32'}}}]}",
        &["spec.pools[0].resources.requests.cpu", "above the limit 16"],
    ),
    (
        "{model: {uri: 'hf://a/b'}, engine: {args: {tensor-parallel-size: '2'}}}",
        &["spec.engine.args", "set by the operator"],
    ),
    (
        "{model: {uri: 'hf://a/b'}, engine: {removeArgs: [disable-access-log-for-endpoint]}}",
        &["removeArgs", "did you mean \"disable-access-log-for-endpoints\"?"],
    ),
    (
        "{model: {uri: 'hf://a/b'}, engine: {startupTimeout: soon}}",
        &["startupTimeout", "\"soon\"", "90s, 5m or 1h"],
    ),
    (
        "{model: {uri: 'hf://a/b'}, rollout: {drain: 48h}}",
        &["spec.rollout.drain", "from 1s to 24h"],
    ),
    (
        "{model: {uri: 'hf://a/b'}, router: {epp: {config: {inline: {apiVersion: llm-d.ai/v1alpha1, \
         kind: EndpointPickerConfig, plugins: [{type: queue-scorrer}]}}}}}",
        &["spec.router.epp.config.inline", "queue-scorrer", "not registered"],
    ),
    (
        "{model: {uri: 'hf://a/b'}, engine: {type: Simulator}}",
        &[
            "spec.pools[decode].accelerator",
            "the simulator would hold 2 nvidia.com/gpu",
            "path: simulated",
        ],
    ),
    (
        "{model: {uri: 'hf://a/b'}, router: {epp: {config: {inline: {apiVersion: v1, kind: Pod}}}}}",
        &["spec.router.epp.config.inline", "EndpointPickerConfig"],
    ),
];

#[test]
fn a_wrong_spec_is_refused_by_field_and_value() {
    for (spec, parts) in SPECS {
        let errors = Documents::read(&document(spec)).validate(0).expect_err(spec);
        let text = lines(&errors);
        let line = text
            .lines()
            .find(|line| parts.iter().all(|part| line.contains(part)));
        assert!(line.is_some(), "{spec}: no line with {parts:?} in\n{text}");
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    let spec = "{model: {uri: 'hf://a/b'}, engine: {startupTimeout: soon}, rollout: {drain: later}}";
    let errors = Documents::read(&document(spec)).validate(0).unwrap_err();
    let text = lines(&errors);
    assert!(
        text.contains("startupTimeout") && text.contains("drain"),
        "{text}"
    );
}

#[test]
fn a_text_that_is_no_document_is_refused_with_its_place() {
    for (text, part) in [
        ("a: [", "at line 2 column 1"),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\n",
            "llmd.dev/v1alpha1",
        ),
        (
            "apiVersion: llmd.dev/v1alpha1\nkind: LLMDeploiment\nmetadata: {name: x}\n",
            "\"LLMDeployment\"",
        ),
        (
            "apiVersion: llmd.dev/v1alpha1\nkind: LLMDeployment\nspec: {}\n",
            "metadata.name",
        ),
        (
            "apiVersion: llmd.dev/v1alpha1\nkind: LLMDeployment\nmetadata: {name: x}\nspec: {pools: [{nme: a}]}\n",
            "did you mean \"name\"?",
        ),
    ] {
        let error = decode(text).expect_err(text).to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
}

/// An unpinned path moves with the operator: the author is told the line to write.
#[test]
fn an_unpinned_path_is_noted_with_the_line_to_add() {
    let documents = Documents::read(&document("{model: {uri: 'hf://a/b'}}"));
    let notes = documents.validate(0).unwrap().notes.join("\n");
    assert!(notes.contains("pathVersion: v1"), "{notes}");
    let documents = Documents::read(&document("{path: simulated, pathVersion: v1, model: {name: m}}"));
    assert_eq!(documents.validate(0).unwrap().notes, Vec::<String>::new());
}

#[test]
fn a_name_that_is_no_dns_label_is_refused() {
    for name in ["Upper", "1st", "a.b", "end-", &"x".repeat(41)] {
        let text =
            document("{model: {uri: 'hf://a/b'}}").replace("\"name\":\"x\"", &format!("\"name\":\"{name}\""));
        let errors = Documents::read(&text).validate(0).expect_err(name);
        assert!(
            lines(&errors).contains("metadata.name"),
            "{name}: {}",
            lines(&errors)
        );
    }
}

#[test]
fn a_quantity_may_be_a_number() {
    let with = |cpu: &str| {
        let spec = format!(
            "{{model: {{uri: 'hf://a/b'}}, pools: [{{name: decode, resources: {{requests: {{cpu: {cpu}}}}}}}]}}"
        );
        Documents::read(&document(&spec)).render(0).to_yaml()
    };
    assert_eq!(with("4"), with("'4'"));
}

#[test]
fn a_supplied_path_is_checked_like_a_deployment() {
    for (template, part) in [
        (
            "{pools: [{name: UPPER}]}",
            "WellLitPath own: spec.template.pools[0].name",
        ),
        (
            "{engine: {args: {port: '1'}}}",
            "WellLitPath own: spec.template.engine.args",
        ),
        ("{path: simulated}", "a path cannot name a path"),
        ("{}, images: v9", "WellLitPath own: spec.images"),
    ] {
        let text = format!(
            "{}\n---\n{{apiVersion: llmd.dev/v1alpha1, kind: WellLitPath, metadata: {{name: own}}, \
             spec: {{version: v1, template: {template}}}}}",
            document("{path: own, model: {uri: 'hf://a/b'}}")
        );
        let errors = Documents::read(&text).validate(0).expect_err(template);
        assert!(lines(&errors).contains(part), "{template}: {}", lines(&errors));
    }
}
