//! What Argo CD sees of resources that a running operator acts on.

use std::process::Command;

use llmd_e2e::Process;
use llmd_e2e::process::llmd_bin;
use llmd_e2e_cluster::{Cluster, Namespace, Shared, poll_until};
use serde_json::Value;

use super::health;

static CLUSTER: Shared = Shared::new(|| Cluster::control(1));

const DEPLOYMENT: &str = "
apiVersion: llmd.dev/v1alpha1
kind: LLMDeployment
metadata: {name: demo}
spec:
  path: simulated
  pathVersion: v1
  model: {name: test/model}
";
/// The field manager of Argo CD.
const SYNC: [&str; 4] = [
    "apply",
    "--server-side",
    "--field-manager=argocd-controller",
    "-f",
];

fn operator(namespace: &Namespace) -> Process {
    let mut command = Command::new(llmd_bin());
    command.env("KUBECONFIG", namespace.cluster().kubeconfig()).args([
        "operator",
        &format!("--namespaces={}", namespace.name()),
        "--leader-elect=false",
        "--metrics-bind-address=127.0.0.1:0",
        "--health-probe-bind-address=127.0.0.1:0",
    ]);
    Process::spawn("operator", command)
}

async fn object(namespace: &Namespace) -> Option<Value> {
    let text = namespace
        .kubectl(["get", "llmd", "demo", "-o", "json"])
        .await
        .ok()?;
    serde_json::from_str(&text).ok()
}

/// Waits until the script says this of the live object.
async fn wait_for(namespace: &Namespace, status: &str, part: &str) {
    poll_until(&format!("{status} with {part:?}"), || async {
        let (is, message) = health(&object(namespace).await?);
        (is == status && message.contains(part)).then_some(())
    })
    .await
    .unwrap();
}

async fn patch(namespace: &Namespace, patch: &str) {
    let words = ["patch", "llmd", "demo", "--type=merge", "-p", patch];
    namespace.kubectl(words).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_script_sees_each_state_and_a_second_sync_changes_nothing() {
    let namespace = CLUSTER.get().await.unwrap().namespace().await.unwrap();
    let file = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
    std::fs::write(file.path(), DEPLOYMENT).unwrap();
    let sync = || SYNC.into_iter().chain([file.path().to_str().unwrap()]);
    namespace.kubectl(sync()).await.unwrap();
    assert_eq!(
        health(&object(&namespace).await.unwrap()).1,
        "waiting for the operator"
    );

    let first = operator(&namespace);
    wait_for(&namespace, "Healthy", "decode 2/2").await;
    let before = object(&namespace).await.unwrap();
    namespace.kubectl(sync()).await.unwrap();
    let after = object(&namespace).await.unwrap();
    assert_eq!(
        before["metadata"]["resourceVersion"],
        after["metadata"]["resourceVersion"]
    );
    // Nothing but what the file says: no default, nothing of the operator's.
    let written: Value = serde_yaml::from_str(DEPLOYMENT).unwrap();
    assert_eq!(after["spec"], written["spec"]);
    assert!(after["metadata"].get("finalizers").is_none() && after["metadata"].get("annotations").is_none());

    patch(&namespace, r#"{"spec":{"stopped":true}}"#).await;
    wait_for(&namespace, "Suspended", "spec.stopped").await;
    patch(
        &namespace,
        r#"{"spec":{"stopped":null,"path":"simulatd","pathVersion":null}}"#,
    )
    .await;
    wait_for(&namespace, "Degraded", "simulatd").await;
    patch(&namespace, r#"{"spec":{"path":"simulated","engine":{"type":"Simulator"},"scheduling":{"nodeSelector":{"no":"where"}}}}"#).await;
    wait_for(&namespace, "Progressing", "cannot schedule").await;
    patch(&namespace, r#"{"spec":{"scheduling":null}}"#).await;
    wait_for(&namespace, "Healthy", "decode 2/2").await;

    drop(first);
    patch(
        &namespace,
        r#"{"spec":{"replicas":2},"metadata":{"finalizers":["example.com/hold"]}}"#,
    )
    .await;
    assert_eq!(
        health(&object(&namespace).await.unwrap()).1,
        "waiting for the operator"
    );
    namespace
        .kubectl(["delete", "llmd", "demo", "--wait=false"])
        .await
        .unwrap();
    assert_eq!(health(&object(&namespace).await.unwrap()).1, "being deleted");
    patch(&namespace, r#"{"metadata":{"finalizers":null}}"#).await;
}
