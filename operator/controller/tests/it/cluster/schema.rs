//! The API server reads our schemas and rules as we do.

use kube::api::{Api, ApiResource, DynamicObject, PostParams};
use kube::core::Status;
use llmd_crds::{AcceleratorProfile, LLMDeployment, WellLitPath};
use llmd_e2e_cluster::Namespace;
use serde::Deserialize;
use serde_json::{Value, json};

use super::rig::CLUSTER;

/// See the file: shared with the tests that need no cluster.
#[derive(Deserialize)]
struct Case {
    right: String,
    wrong: String,
    field: String,
    reason: Option<String>,
    says: String,
}

/// Creates an object on trial: what the API server would store, or why it refuses.
pub async fn trial(namespace: &Namespace, kind: &str, name: &str, spec: &Value) -> Result<Value, Status> {
    let resource = match kind {
        "LLMDeployment" => ApiResource::erase::<LLMDeployment>(&()),
        "WellLitPath" => ApiResource::erase::<WellLitPath>(&()),
        _ => ApiResource::erase::<AcceleratorProfile>(&()),
    };
    let client = namespace.client().await.unwrap();
    let api: Api<DynamicObject> = if kind == "LLMDeployment" {
        Api::namespaced_with(client, namespace.name(), &resource)
    } else {
        Api::all_with(client, &resource)
    };
    let object = DynamicObject::new(name, &resource).data(json!({ "spec": spec }));
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    match api.create(&dry, &object).await {
        Ok(stored) => Ok(serde_json::to_value(stored).unwrap()),
        Err(kube::Error::Api(status)) => Err(*status),
        Err(error) => panic!("{kind} {name}: {error}"),
    }
}

fn yaml(text: &str) -> Value {
    let text = text.replace("MODEL", "model: {uri: 'hf://a/b'}");
    serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Field, reason and message of each cause.
fn causes(status: &Status) -> Vec<(String, String, String)> {
    let details = status.details.as_ref();
    details
        .into_iter()
        .flat_map(|details| &details.causes)
        .map(|cause| (cause.field.clone(), cause.reason.clone(), cause.message.clone()))
        .collect()
}

#[tokio::test]
async fn the_api_server_evaluates_every_rule_as_we_do() {
    let namespace = CLUSTER.get().await.unwrap().namespace().await.unwrap();
    let cases: Vec<Case> =
        serde_yaml::from_str(include_str!("../../../../../crds/tests/rules.yaml")).unwrap();
    for case in &cases {
        if let Err(status) = trial(&namespace, "LLMDeployment", "x", &yaml(&case.right)).await {
            panic!("{} is refused: {}", case.right, status.message);
        }
        let status = trial(&namespace, "LLMDeployment", "x", &yaml(&case.wrong))
            .await
            .expect_err(&case.wrong);
        let causes = causes(&status);
        let found = causes.iter().any(|(field, reason, message)| {
            let reasons = case.reason.as_ref().is_none_or(|wanted| reason == wanted);
            *field == case.field && reasons && message.contains(&case.says)
        });
        assert!(found, "{}: {causes:?}", case.wrong);
    }
}

#[tokio::test]
async fn rules_outside_of_a_spec_hold_too() {
    let namespace = CLUSTER.get().await.unwrap().namespace().await.unwrap();
    let spec = yaml("{MODEL}");
    let longest = "x".repeat(40);
    trial(&namespace, "LLMDeployment", &longest, &spec).await.unwrap();
    let longer = format!("{longest}x");
    let status = trial(&namespace, "LLMDeployment", &longer, &spec)
        .await
        .unwrap_err();
    assert!(
        status.message.contains("at most 40 characters"),
        "{}",
        status.message
    );
    let path = yaml("{version: v1, template: {path: simulated}}");
    let status = trial(&namespace, "WellLitPath", "x", &path).await.unwrap_err();
    assert_eq!(causes(&status)[0].0, "spec.template", "{}", status.message);
    let path = yaml("{version: v1, template: {engine: {type: Simulator}}}");
    trial(&namespace, "WellLitPath", "x", &path).await.unwrap();
}

const SCHEDULING: &str = "{nodeSelector: {a: b}, priorityClassName: batch, tolerations: [{key: k, operator: Equal, value: v, effect: NoSchedule}]}";
const ENGINE: &str = "{type: Vllm, image: 'i:1', imagePullPolicy: Always, args: {seed: '1'}, removeArgs: [x], extraArgs: ['--y'], env: [{name: A, value: b}, {name: B, valueFrom: {secretKeyRef: {name: s, key: k, optional: true}}}, {name: C, valueFrom: {configMapKeyRef: {name: s, key: k, optional: false}}}, {name: D, valueFrom: {fieldRef: {fieldPath: status.podIP}}}], startupTimeout: 1h}";
const RESOURCES: &str = "{requests: {cpu: 1}, limits: {memory: 1Gi}}";

/// Specs that together set every field of the schema.
fn everything() -> [Value; 2] {
    let common = |network: &str, store: &str| {
        format!(
        "pathVersion: v1, replicas: 2, stopped: true,
        model: {{uri: 'hf://a/b', name: n, aliases: [m], revision: main, tokenSecretRef: {{name: s, key: k}}, trustRemoteCode: true, storage: {{claimName: c, readOnly: true}}}},
        engine: {ENGINE}, scheduling: {SCHEDULING}, security: {{imagePullSecrets: [s], podSecurity: Restricted}},
        kv: {{blockSize: 64, transfer: {{backend: UCX, failurePolicy: Fail, network: {network}}}, offload: {{connector: {store}, cpu: 1Gi, peerToPeer: false, filesystem: {{claimName: c, size: 1Ti, readThreads: 1, writeThreads: 2}}}}}},
        pools: [{{name: p, role: Decode, replicas: 3, parallelism: {{tensor: 2, pipeline: 2, pipelineLocal: 1, data: 4, dataLocal: 2, expert: true}}, loadBalancing: Hybrid, accelerator: {{vendor: Nvidia, count: 2, profile: h100, deviceClassName: c}},
                 resources: {RESOURCES}, engine: {ENGINE}, scheduling: {SCHEDULING}}}],
        rollout: {{strategy: Coherent, maxSurge: 25%, maxUnavailable: 1, drain: 60s}},
        commonMetadata: {{labels: {{team: a}}, annotations: {{team: a}}}}"
        )
    };
    let plugin = common("{resourceName: rdma/ib, count: 2}", "LMCache");
    let claimed = common(
        "{deviceClassName: c, matchAttribute: a/b}",
        "Mooncake, mooncake: {master: 'm:1', protocol: Rdma, buffer: 1Gi}",
    );
    let epp = format!(
        "epp: {{image: 'e:1', resources: {RESOURCES}, flags: {{v: '4'}}, config: {{inline: {{plugins: [{{type: a}}]}}}}}}, failureMode: FailClose"
    );
    [
        format!(
            "{{path: optimized-baseline, {plugin}, router: {{mode: Standalone, {epp}, proxy: {{type: Envoy, failOpen: false, image: 'p:1'}}}}}}"
        ),
        format!(
            "{{path: optimized-baseline, {claimed}, router: {{mode: Gateway, {epp}, gateway: {{parentRefs: [{{name: g, namespace: infra, sectionName: https}}],
              hostnames: ['*.example.com'], match: ModelHeader, timeout: 60s}}}}}}"
        ),
    ]
    .map(|text| yaml(&text))
}

/// Fields of `schema` that none of `values` sets.
fn unset(path: &str, schema: &Value, values: &[&Value]) -> Vec<String> {
    if values.is_empty() {
        return vec![path.to_owned()];
    }
    let mut missing = Vec::new();
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let children: Vec<&Value> = values.iter().filter_map(|value| value.get(name)).collect();
        missing.extend(unset(&format!("{path}.{name}"), property, &children));
    }
    if schema["items"].is_object() {
        let items: Vec<&Value> = values
            .iter()
            .filter_map(|value| value.as_array())
            .flatten()
            .collect();
        missing.extend(unset(&format!("{path}[]"), &schema["items"], &items));
    }
    missing
}

/// What is applied is what is stored: no field is pruned, defaulted or written another way.
#[tokio::test]
async fn every_field_comes_back_as_it_was_written() {
    let namespace = CLUSTER.get().await.unwrap().namespace().await.unwrap();
    let deployments = everything();
    let paths = everything().map(|mut template| {
        let fields = template.as_object_mut().unwrap();
        fields.remove("path");
        fields.remove("pathVersion");
        json!({"version": "v1", "description": "d", "hardware": "h", "images": "v1", "template": template})
    });
    let profile = format!(
        "{{resourceName: nvidia.com/gpu, acceleratorsPerNode: 8, {}",
        &SCHEDULING[1..]
    );
    let mut profile = yaml(&profile);
    profile.as_object_mut().unwrap().remove("priorityClassName");
    let objects = [
        ("AcceleratorProfile", vec![profile]),
        ("LLMDeployment", deployments.to_vec()),
        ("WellLitPath", paths.to_vec()),
    ];
    let definitions = llmd_crds::all();
    for ((kind, specs), definition) in objects.iter().zip(&definitions) {
        assert_eq!(definition.spec.names.kind, *kind);
        let definition = serde_json::to_value(definition).unwrap();
        let schema = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";
        let missing = unset(
            "spec",
            definition.pointer(schema).unwrap(),
            &specs.iter().collect::<Vec<_>>(),
        );
        let missing: Vec<_> = missing
            .iter()
            .filter(|field| !matches!(field.as_str(), "spec.template.path" | "spec.template.pathVersion"))
            .collect();
        assert!(missing.is_empty(), "{kind}: no object sets {missing:?}");
        for spec in specs {
            let stored = trial(&namespace, kind, "x", spec).await;
            let stored = stored.unwrap_or_else(|status| panic!("{kind}: {}", status.message));
            assert_eq!(stored["spec"], *spec, "{kind}");
        }
    }
}
