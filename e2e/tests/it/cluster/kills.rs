//! An operator that is killed at any of its writes leaves nothing that its successor does not set right.

mod relay;

use std::process::Command;

use futures_util::{StreamExt, stream};
use llmd_e2e::Process;
use llmd_e2e::process::llmd_bin;
use llmd_e2e_cluster::{Cluster, Namespace, Shared, poll_until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use relay::{Held, Relay};

static CLUSTER: Shared = Shared::new(|| Cluster::control(2));

const DEPLOYMENT: &str = "
apiVersion: llmd.dev/v1alpha1
kind: LLMDeployment
metadata: {name: demo}
spec:
  path: simulated
  model: {name: test/model}
  pools: [{name: decode, replicas: 1}]
";
/// Kinds that an operator makes, and what Kubernetes makes of them.
const KINDS: &str =
    "deployments,replicasets,services,configmaps,serviceaccounts,roles,rolebindings,poddisruptionbudgets";
/// Runs at a time.
const TOGETHER: usize = 4;

/// `llmd operator` for one namespace, by way of a relay.
struct Operator {
    process: Process,
    relay: Relay,
    _config: tempfile::NamedTempFile,
}

impl Operator {
    async fn start(namespace: &Namespace, held: Held) -> Self {
        let relay = Relay::start(namespace.client().await.unwrap(), held).await;
        let config = tempfile::NamedTempFile::new().unwrap();
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "relay",
            "clusters": [{"name": "relay", "cluster": {"server": format!("http://{}", relay.address)}}],
            "users": [{"name": "relay", "user": {}}],
            "contexts": [{"name": "relay", "context": {
                "cluster": "relay", "user": "relay", "namespace": namespace.name(),
            }}],
        });
        std::fs::write(config.path(), kubeconfig.to_string()).unwrap();
        let mut command = Command::new(llmd_bin());
        command.env("KUBECONFIG", config.path()).args([
            "operator",
            &format!("--namespaces={}", namespace.name()),
            "--leader-elect=false",
            "--metrics-bind-address=127.0.0.1:0",
            "--health-probe-bind-address=127.0.0.1:0",
        ]);
        Self {
            process: Process::spawn("operator", command),
            relay,
            _config: config,
        }
    }
}

/// What is in the namespace, without what differs from run to run.
async fn state(namespace: &Namespace) -> Value {
    let list = namespace.kubectl(["get", KINDS, "-o", "json"]).await.unwrap();
    let list = list.replace(namespace.name(), "NAMESPACE");
    let mut list: Value = serde_json::from_str(&list).unwrap();
    let mut objects: Vec<Value> = list["items"].as_array_mut().unwrap().drain(..).collect();
    for object in &mut objects {
        let metadata = object["metadata"].as_object_mut().unwrap();
        for volatile in ["uid", "resourceVersion", "creationTimestamp", "managedFields"] {
            metadata.remove(volatile);
        }
        for owner in metadata
            .get_mut("ownerReferences")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            owner["uid"].take();
        }
        object["status"].take();
        // Addresses are given out in turn.
        for given in ["clusterIP", "clusterIPs"] {
            object["spec"].as_object_mut().and_then(|spec| spec.remove(given));
        }
        // The certificate of the cluster.
        if object["metadata"]["name"] == "kube-root-ca.crt" {
            object["data"].take();
        }
    }
    objects.sort_by_key(|object| format!("{}/{}", object["kind"], object["metadata"]["name"]));
    json!(objects)
}

/// Conditions of the resource once it is ready, without their times.
async fn ready(namespace: &Namespace) -> Value {
    poll_until("demo to be ready", || async {
        let object = namespace
            .kubectl(["get", "llmd", "demo", "-o", "json"])
            .await
            .ok()?;
        let object: Value = serde_json::from_str(&object).ok()?;
        let mut conditions = object["status"]["conditions"].clone();
        let list = conditions.as_array_mut()?;
        let is_ready = |one: &Value| one["type"] == "Ready" && one["status"] == "True";
        if !list.iter().any(is_ready) {
            return None;
        }
        for one in list {
            one["lastTransitionTime"].take();
        }
        let text = conditions.to_string().replace(namespace.name(), "NAMESPACE");
        serde_json::from_str(&text).ok()
    })
    .await
    .unwrap()
}

/// A run without a kill: its writes and its end.
async fn undisturbed() -> (usize, Value, Value) {
    let namespace = CLUSTER.get().await.unwrap().namespace().await.unwrap();
    namespace.apply(DEPLOYMENT).await.unwrap();
    let operator = Operator::start(&namespace, Held::Nothing).await;
    let conditions = ready(&namespace).await;
    (operator.relay.writes(), state(&namespace).await, conditions)
}

/// Kills the operator at one of its writes and lets another one finish. Returns whether the write was reached.
async fn killed(held: Held, expected: &(Value, Value)) -> bool {
    let namespace = CLUSTER.get().await.unwrap().namespace().await.unwrap();
    namespace.apply(DEPLOYMENT).await.unwrap();
    let mut first = Operator::start(&namespace, held).await;
    // One that is ready with fewer writes than the undisturbed one was never reaches this one.
    let is_reached = tokio::select! {
        () = first.relay.reached() => true,
        _ = ready(&namespace) => false,
    };
    first.process.signal(Signal::SIGKILL);
    first.process.wait(llmd_e2e_cluster::DEADLINE);
    let _second = Operator::start(&namespace, Held::Nothing).await;
    assert_eq!(ready(&namespace).await, expected.1, "{held:?}");
    assert_eq!(state(&namespace).await, expected.0, "{held:?}");
    is_reached
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_write_leads_to_the_same_end() {
    let (writes, state, conditions) = undisturbed().await;
    assert!(writes > 12, "{writes} writes are too few to be all");
    let expected = (state, conditions);
    let runs = (1..=writes).flat_map(|number| [Held::Before(number), Held::After(number)]);
    let reached: Vec<bool> = stream::iter(runs.map(|held| killed(held, &expected)))
        .buffer_unordered(TOGETHER)
        .collect()
        .await;
    // Statuses and events may melt into fewer; the objects do not.
    let kills = reached.into_iter().filter(|is_reached| *is_reached).count();
    assert!(kills > 24, "only {kills} of {} writes were reached", 2 * writes);
}
