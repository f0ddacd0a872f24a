//! Whoever may write an LLMDeployment gets no more than the pods that we render.

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, PostParams};
use llmd_e2e_cluster::Namespace;
use llmd_render::{Document, Inputs, RenderOptions, decode, render, validate};
use serde_json::{Value, json};

use super::rig::CLUSTER;
use super::schema::trial;

/// Fields that would reach the host, another account or another namespace, where a pod or a chart has them.
const ABSENT: &[&str] = &[
    "/hostNetwork",
    "/hostPID",
    "/hostIPC",
    "/serviceAccountName",
    "/namespace",
    "/podTemplate",
    "/security/privileged",
    "/security/runAsUser",
    "/security/serviceAccountName",
    "/security/podSecurityContext",
    "/scheduling/nodeName",
    "/scheduling/runtimeClassName",
    "/scheduling/schedulerName",
    "/model/storage/hostPath",
    "/model/storage/namespace",
    "/model/storage/subPath",
    "/model/tokenSecretRef/namespace",
    "/engine/command",
    "/engine/volumes",
    "/engine/volumeMounts",
    "/engine/securityContext",
    "/engine/lifecycle",
    "/engine/hostPort",
    "/router/epp/serviceAccountName",
    "/router/epp/rbac",
    "/router/epp/securityContext",
    "/router/epp/config/namespace",
    "/router/proxy/config",
    "/router/proxy/securityContext",
    "/engine/env/0/valueFrom/secretKeyRef/namespace",
    "/pools/0/poolRef",
    "/pools/0/labels",
    "/pools/0/selector",
    "/pools/0/serviceAccountName",
    "/pools/0/initContainers",
];

/// Inputs of every kind of mistake in quoting, templating and paths.
const HOSTILE: &[&str] = &[
    "a\nhostNetwork: true\nprivileged: true",
    "\"}, \"hostNetwork\": true, \"x\": {\"",
    "'; admin: {address: 0.0.0.0} #",
    "{{ .Values.secret }}",
    "$(KUBERNETES_SERVICE_HOST) ${HOME} `id`",
    "../../../etc/kubernetes",
    "kube-system/secret",
    "--kubeconfig=/etc/kubernetes/admin.conf",
    "%ENVIRONMENT(SECRET)% %REQ(x)%",
    "\u{202e}\u{0}é 𝕏",
    "plain",
];

/// Where an author may write free text.
const FREE: &[&str] = &[
    "/model/name",
    "/model/aliases/0",
    "/model/uri",
    "/model/revision",
    "/model/storage/claimName",
    "/model/tokenSecretRef/name",
    "/model/tokenSecretRef/key",
    "/engine/image",
    "/engine/args/a",
    "/engine/args/KEY",
    "/engine/extraArgs/0",
    "/engine/env/0/name",
    "/engine/env/0/value",
    "/engine/env/0/valueFrom/secretKeyRef/name",
    "/engine/env/0/valueFrom/secretKeyRef/key",
    "/engine/env/0/valueFrom/fieldRef/fieldPath",
    "/router/epp/image",
    "/router/epp/flags/v",
    "/router/epp/flags/KEY",
    "/router/proxy/image",
    "/scheduling/nodeSelector/a",
    "/scheduling/nodeSelector/KEY",
    "/scheduling/tolerations/0/key",
    "/scheduling/tolerations/0/value",
    "/security/imagePullSecrets/0",
    "/commonMetadata/labels/a",
    "/commonMetadata/labels/KEY",
    "/commonMetadata/annotations/a",
    "/commonMetadata/annotations/KEY",
    "/router/gateway/parentRefs/0/name",
    "/router/gateway/parentRefs/0/namespace",
    "/router/gateway/parentRefs/0/sectionName",
    "/router/gateway/hostnames/0",
    "/router/gateway/timeout",
];

fn base() -> Value {
    json!({
        "path": "optimized-baseline",
        "model": {"uri": "hf://org/model"},
        "pools": [{"name": "decode", "replicas": 1}],
    })
}

/// What the places below `router.gateway` need around them.
fn behind_a_gateway() -> Value {
    let mut spec = base();
    spec["router"] = json!({"mode": "Gateway", "gateway": {"parentRefs": [{"name": "g"}]}});
    spec
}

/// Sets a place in `value`, making what is on the way; `KEY` writes the text as a key.
fn set(value: &mut Value, pointer: &str, text: &Value) {
    let (first, rest) = pointer[1..]
        .split_once('/')
        .map_or((&pointer[1..], None), |(first, rest)| (first, Some(rest)));
    let inner = if first == "0" {
        if !value.is_array() {
            *value = json!([{}]);
        }
        &mut value[0]
    } else {
        let key = if first == "KEY" {
            text.as_str().unwrap()
        } else {
            first
        };
        &mut value[key]
    };
    match rest {
        Some(rest) => set(inner, &format!("/{rest}"), text),
        None if first == "KEY" => *inner = "x".into(),
        None => *inner = text.clone(),
    }
}

/// The objects of a spec, or nothing where it is refused.
fn objects(namespace: &str, spec: &Value) -> Option<Vec<Value>> {
    let text = json!({
        "apiVersion": "llmd.dev/v1alpha1", "kind": "LLMDeployment",
        "metadata": {"name": "x", "namespace": namespace}, "spec": spec,
    })
    .to_string();
    let Ok([Document::Deployment(deployment)]) =
        decode(&text).map(|list| <[Document; 1]>::try_from(list).unwrap())
    else {
        return None;
    };
    let inputs = Inputs {
        deployment: &deployment,
        paths: &[],
        accelerators: &[],
        namespace,
        kept: None,
    };
    let validated = validate(inputs).ok()?;
    let rendered = render(&validated.deployment, &RenderOptions::default());
    Some(
        rendered
            .objects
            .iter()
            .map(llmd_render::Object::to_value)
            .collect(),
    )
}

#[tokio::test]
async fn fields_that_would_give_privilege_are_not_stored() {
    let namespace = CLUSTER.get().await.unwrap().namespace().await.unwrap();
    for pointer in ABSENT {
        let mut spec = base();
        spec["model"]["tokenSecretRef"] = json!({"name": "s"});
        spec["model"]["storage"] = json!({"claimName": "c"});
        if pointer.contains("secretKeyRef") {
            spec["engine"] =
                json!({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]});
        }
        spec["router"] = json!({"epp": {"config": {"inline": {}}}});
        set(&mut spec, pointer, &json!("root"));
        let stored = trial(&namespace, "LLMDeployment", "x", &spec).await;
        let stored = stored.unwrap_or_else(|status| panic!("{pointer}: {}", status.message));
        assert_eq!(stored["spec"].pointer(pointer), None, "{pointer} is stored");
        assert!(objects("default", &spec).is_none(), "{pointer} is rendered");
        let text = json!({
            "apiVersion": "llmd.dev/v1alpha1", "kind": "LLMDeployment", "metadata": {"name": "x"}, "spec": spec,
        });
        let error = namespace.apply(&text.to_string()).await.unwrap_err();
        let name = pointer.rsplit('/').next().unwrap();
        assert!(format!("{error:#}").contains(name), "{pointer}: {error:#}");
    }
}

/// A namespace that refuses what the restricted profile refuses, with the accounts that our pods name.
async fn restricted() -> Namespace {
    let namespace = CLUSTER.get().await.unwrap().namespace().await.unwrap();
    let label = "pod-security.kubernetes.io/enforce=restricted";
    let cluster = namespace.cluster();
    cluster
        .kubectl(["label", "namespace", namespace.name(), label])
        .await
        .unwrap();
    for account in ["x-epp", "x-modelserver"] {
        namespace
            .kubectl(["create", "serviceaccount", account])
            .await
            .unwrap();
    }
    namespace
}

/// Creates a pod on trial: `Ok(true)` where it is taken, `Ok(false)` where a value is none of Kubernetes'.
async fn admitted(pods: &Api<Pod>, template: &Value) -> Result<bool, String> {
    let mut pod = json!({"metadata": template["metadata"], "spec": template["spec"]});
    pod["metadata"]["name"] = "trial".into();
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let pod: Pod = serde_json::from_value(pod).unwrap();
    match pods.create(&dry, &pod).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 422 || status.code == 400 => Ok(false),
        Err(error) => Err(error.to_string()),
    }
}

fn namespaces<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get("namespace"));
            map.values().for_each(|value| namespaces(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| namespaces(value, found)),
        _ => {}
    }
}

/// What must not depend on any text of the author.
fn fixed(objects: &[Value]) -> Vec<Value> {
    let fixed = objects.iter().map(|object| {
        let data = &object["data"]["envoy.yaml"];
        json!([
            object["kind"],
            object["metadata"]["name"],
            object["rules"],
            object["roleRef"],
            object["subjects"],
            data,
            object["spec"]["selector"],
            object["spec"]["template"]["spec"]["serviceAccountName"],
        ])
    });
    fixed.collect()
}

#[tokio::test]
async fn no_text_of_an_author_leads_out_of_a_restricted_namespace() {
    let namespace = restricted().await;
    let name = namespace.name();
    let pods: Api<Pod> = Api::namespaced(namespace.client().await.unwrap(), name);
    let plain = fixed(&objects(name, &base()).unwrap());
    let plain_behind = fixed(&objects(name, &behind_a_gateway()).unwrap());
    let (mut taken, mut refused) = (0, 0);
    for place in FREE {
        for text in HOSTILE {
            let is_behind = place.starts_with("/router/gateway");
            let (mut spec, plain) = if is_behind {
                (behind_a_gateway(), &plain_behind)
            } else {
                (base(), &plain)
            };
            let text = if *place == "/model/uri" {
                format!("hf://org/{text}")
            } else {
                (*text).to_owned()
            };
            if place.starts_with("/model/token") {
                spec["model"]["tokenSecretRef"] = json!({"name": "s"});
            } else if place.contains("secretKeyRef") {
                spec["engine"] =
                    json!({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]});
            } else if place.contains("valueFrom") {
                spec["engine"] = json!({"env": [{"name": "A"}]});
            } else if place.starts_with("/engine/env") {
                spec["engine"] = json!({"env": [{"name": "A", "value": "v"}]});
            }
            set(&mut spec, place, &text.clone().into());
            let Some(objects) = objects(name, &spec) else {
                let chosen = place.ends_with("fieldPath") || place.ends_with("timeout");
                assert!(chosen || !text.ends_with("plain"), "{place} takes no text at all");
                refused += 1;
                continue;
            };
            assert_eq!(fixed(&objects), *plain, "{place}: {text:?}");
            for object in &objects {
                let mut found = Vec::new();
                let mut object = object.clone();
                // A route may ask any Gateway; whether it is let in is for the Gateway's `allowedRoutes` to say.
                object["spec"]["parentRefs"].take();
                namespaces(&object, &mut found);
                let foreign = found.iter().find(|found| found.is_string() && ***found != *name);
                assert_eq!(foreign, None, "{place}: {text:?}");
                let Some(template) = object.pointer("/spec/template") else {
                    continue;
                };
                match admitted(&pods, template).await {
                    Ok(true) => taken += 1,
                    Ok(false) => refused += 1,
                    Err(error) => panic!("{place}: {text:?}: {error}"),
                }
            }
        }
    }
    assert!(
        taken > 100 && refused > 20,
        "{taken} pods were taken, {refused} texts refused"
    );
}

/// The test above can fail: the same namespace refuses a pod that asks for more.
#[tokio::test]
async fn a_restricted_namespace_refuses_a_pod_with_the_host_s_network() {
    let namespace = restricted().await;
    let name = namespace.name();
    let pods: Api<Pod> = Api::namespaced(namespace.client().await.unwrap(), name);
    let objects = objects(name, &base()).unwrap();
    let mut template = objects
        .iter()
        .find_map(|object| object.pointer("/spec/template"))
        .unwrap()
        .clone();
    template["spec"]["hostNetwork"] = true.into();
    let error = admitted(&pods, &template).await.unwrap_err();
    assert!(error.contains("restricted"), "{error}");
}
