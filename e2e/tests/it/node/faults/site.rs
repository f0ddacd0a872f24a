//! A cluster with the operator and a vLLM of our own making, and one deployment per namespace.

use kube::api::{Api, ApiResource, DynamicObject};
use kube::runtime::wait::await_condition;
use llmd_crds::LLMDeployment;
use llmd_e2e_cluster::{Cluster, DEADLINE, Namespace, Shared, poll_until};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::node::operator;
use crate::up::support::llmd;

/// The third node is for the pods of those that name it, and to be lost.
static CLUSTER: Shared = Shared::new(|| Cluster::node(3).without_our_crds());
static IMAGE: OnceCell<String> = OnceCell::const_new();

/// What the stand-in's log and the token's Secret hold, and nothing else may.
pub const CANARY: &str = "hf_canary";
/// The name of the deployments.
pub const NAME: &str = "demo";
/// A message may take the start of a pod, a probe's period, and a back-off of the kubelet.
const LONG: std::time::Duration = std::time::Duration::from_secs(3 * DEADLINE.as_secs());

/// A namespace, and the image of the stand-in.
pub struct Site {
    pub namespace: Namespace,
    pub image: String,
}

/// The cluster with the operator, verbose.
pub async fn cluster() -> (&'static Cluster, &'static str) {
    let cluster = CLUSTER.get().await.unwrap();
    let prepare = || async {
        // before the operator comes: the loss of its leader is another test's affair
        cluster
            .kubectl(["taint", "node", "n3", "to-be-lost=:NoSchedule"])
            .await?;
        operator::install(cluster, &["--set", "logLevel=4"]).await?;
        cluster.install_script("vllm", include_str!("vllm.sh")).await
    };
    (cluster, IMAGE.get_or_try_init(prepare).await.unwrap())
}

impl Site {
    pub async fn new() -> Self {
        let (cluster, image) = cluster().await;
        Self {
            namespace: cluster.namespace().await.unwrap(),
            image: image.to_owned(),
        }
    }

    /// One small engine of the stand-in behind our proxy; `change` is merged into the spec.
    pub fn deployment(&self, change: &Value) -> String {
        let mut spec = json!({
            "model": {"uri": "hf://org/model"},
            "engine": {"image": self.image},
            "router": {
                "proxy": {"type": "Builtin"},
                "epp": {"resources": {"requests": {"cpu": "10m", "memory": "32Mi"}}},
            },
            "pools": [pool(&json!({}))],
        });
        merge(&mut spec, change);
        json!({"apiVersion": "llmd.dev/v1alpha1", "kind": "LLMDeployment", "metadata": {"name": NAME}, "spec": spec})
            .to_string()
    }

    pub async fn apply(&self, change: &Value) {
        self.namespace.apply(&self.deployment(change)).await.unwrap();
    }

    pub async fn kubectl(&self, words: &[&str]) -> String {
        self.namespace.kubectl(words).await.unwrap()
    }

    /// Waits until `Ready` has this status, and a reason and message with these parts. Returns its message.
    pub async fn ready(&self, status: &str, reason: &str, part: &str) -> String {
        let resource = ApiResource::erase::<LLMDeployment>(&());
        let client = self.namespace.client().await.unwrap();
        let api: Api<DynamicObject> = Api::namespaced_with(client, self.namespace.name(), &resource);
        let is_so = |object: Option<&DynamicObject>| {
            object.and_then(condition).is_some_and(|[is, why, message]| {
                is == status && why.contains(reason) && message.contains(part)
            })
        };
        let wait = tokio::time::timeout(LONG, await_condition(api.clone(), NAME, is_so)).await;
        let Ok(object) = wait else {
            let last = api.get_opt(NAME).await.unwrap();
            panic!(
                "no Ready={status} {reason} {part:?}; last: {:?}",
                last.as_ref().and_then(condition)
            );
        };
        let [_, _, message] = object.unwrap().as_ref().and_then(condition).unwrap();
        message
    }

    /// Waits until `llmd status` says this of a pod, and returns all that it says.
    pub async fn status(&self, what: &str, says: impl Fn(&Value) -> bool) -> String {
        let place = format!("--namespace={}", self.namespace.name());
        let kubeconfig = format!("--kubeconfig={}", self.namespace.cluster().kubeconfig().display());
        poll_until(&format!("{what} in llmd status"), || async {
            let arguments = [place.clone(), kubeconfig.clone()];
            let done = tokio::task::spawn_blocking(move || {
                llmd(&["status", NAME, "--output=json", &arguments[0], &arguments[1]])
            });
            let (_, said, _) = done.await.ok()?;
            let seen: Value = serde_json::from_str(&said).ok()?;
            seen["pods"].as_array()?.iter().any(&says).then_some(said)
        })
        .await
        .unwrap()
    }

    /// Fails when the canary is in the resource or an event of the namespace.
    pub async fn keeps_secrets(&self) {
        for kind in ["llmdeployments", "events.events.k8s.io", "events", "deployments"] {
            let said = self.kubectl(&["get", kind, "-o", "yaml"]).await;
            assert!(!said.contains(CANARY), "{kind}: {said}");
        }
    }

    /// Waits for an event of this type and reason on the deployment: it follows the status.
    pub async fn event(&self, kind: &str, reason: &str) {
        let about = format!("--field-selector=reason={reason}");
        let types = "jsonpath={.items[?(@.regarding.kind=='LLMDeployment')].type}";
        poll_until(&format!("{kind} event {reason}"), || async {
            let found = self
                .kubectl(&["get", "events.events.k8s.io", &about, "-o", types])
                .await;
            found.split(' ').any(|found| found == kind).then_some(())
        })
        .await
        .unwrap();
    }
}

/// The pool with `change` merged in.
pub fn pool(change: &Value) -> Value {
    let mut pool = json!({
        "name": "decode",
        "replicas": 1,
        "parallelism": {"tensor": 1},
        "accelerator": {"vendor": "Cpu"},
        "resources": {
            "requests": {"cpu": "10m", "memory": "64Mi"},
            "limits": {"cpu": "1", "memory": "1Gi"},
        },
    });
    merge(&mut pool, change);
    pool
}

/// A JSON merge patch: objects member by member, null takes a member away, everything else as a whole.
fn merge(into: &mut Value, change: &Value) {
    match (into, change) {
        (Value::Object(into), Value::Object(change)) => {
            into.retain(|name, _| !change.get(name).is_some_and(Value::is_null));
            for (name, change) in change.iter().filter(|(_, change)| !change.is_null()) {
                merge(into.entry(name.clone()).or_insert(Value::Null), change);
            }
        }
        (into, change) => *into = change.clone(),
    }
}

/// Status, reason and message of `Ready` when it is about the current generation.
fn condition(object: &DynamicObject) -> Option<[String; 3]> {
    let status = &object.data["status"];
    if status["observedGeneration"].as_i64() != object.metadata.generation {
        return None;
    }
    let conditions = status["conditions"].as_array()?;
    let found = conditions.iter().find(|condition| condition["type"] == "Ready")?;
    Some(["status", "reason", "message"].map(|name| found[name].as_str().unwrap_or_default().to_owned()))
}
