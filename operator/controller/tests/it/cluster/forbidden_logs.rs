//! An operator that may not read engines' logs, although it is told to, says what it knows without them.

use llmd_e2e_cluster::{Cluster, Namespace, Shared, poll_until};
use llmd_operator::rbac::{Scope, rules};
use serde_json::{Value, json};

use super::rig::{SIMULATED, condition, operator_as, wait_for};

/// Without kubelets: the test says what becomes of a pod.
static SERVER: Shared = Shared::new(Cluster::api);
const USER: &str = "operator-without-logs";

/// All that the chart grants, less the logs.
async fn grant(namespace: &Namespace) {
    let granted = [Scope::Watched, Scope::Cluster].into_iter().flat_map(rules);
    let name = format!("{USER}-{}", namespace.name());
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name},
         "rules": granted.collect::<Vec<_>>()},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name},
         "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
         "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": USER}]},
    ]});
    namespace.cluster().apply(&list.to_string()).await.unwrap();
    let ask = ["auth", "can-i", "get", "pods", "--subresource=log", "--as", USER];
    let answer = namespace.kubectl(ask).await.unwrap_err();
    assert!(format!("{answer:#}").contains("no"), "{answer:#}");
}

/// What a kubelet would write about the engine.
async fn engine(namespace: &Namespace, restarts: i32, state: Value, last: Value) {
    let status = json!({"status": {
        "phase": "Running",
        "startTime": "2026-01-01T00:00:00Z",
        "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "False"}],
        "containerStatuses": [{
            "name": "modelserver", "image": "i", "imageID": "", "ready": false, "started": false,
            "restartCount": restarts, "state": state, "lastState": last,
        }],
    }})
    .to_string();
    let patch = [
        "patch",
        "pod",
        "demo-decode-1",
        "--subresource=status",
        "--type=merge",
        "-p",
        &status,
    ];
    namespace.kubectl(patch).await.unwrap();
}

/// What a controller manager would write: the router is there, the engines are not.
async fn rollouts(namespace: &Namespace) {
    poll_until("the Deployments", || async {
        for (name, wanted, ready) in [("demo-epp", 1, 1), ("demo-decode", 2, 0)] {
            let status = json!({"status": {"observedGeneration": 1, "replicas": wanted, "updatedReplicas": wanted,
                "readyReplicas": ready, "availableReplicas": ready}});
            let status = status.to_string();
            let patch = ["patch", "deployment", name, "--subresource=status", "--type=merge", "-p", &status];
            namespace.kubectl(patch).await.ok()?;
        }
        Some(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn without_the_permission_the_message_is_right_and_says_less() {
    let namespace = SERVER.get().await.unwrap().namespace().await.unwrap();
    grant(&namespace).await;
    let user = namespace.cluster().user(USER, None).unwrap();
    let flags = ["--leader-elect=false", "--read-engine-logs=true"];
    let _operator = operator_as(user.kubeconfig(), &namespace, &flags).await;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "demo-decode-1", "labels": {
            "llmd.dev/deployment": "demo", "llmd.dev/pool": "decode", "llm-d.ai/inference-serving": "true"}},
        "spec": {"nodeName": "n1", "containers": [{"name": "modelserver", "image": "i"}]},
    });
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    namespace.apply(&account.to_string()).await.unwrap();
    namespace.apply(&pod.to_string()).await.unwrap();
    let running = json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}});
    engine(&namespace, 0, running, json!({})).await;
    namespace.apply(SIMULATED).await.unwrap();
    rollouts(&namespace).await;
    wait_for(&namespace, "demo", "False", "loading the model").await;

    let ended = json!({"terminated": {"exitCode": 7, "reason": "Error", "startedAt": "2026-01-01T00:00:00Z",
        "finishedAt": "2026-01-01T00:01:00Z", "message": "canary-5d20"}});
    let waiting = json!({"waiting": {"reason": "CrashLoopBackOff"}});
    engine(&namespace, 3, waiting, ended).await;
    let object = wait_for(&namespace, "demo", "False", "CrashLoop").await;
    let (_, _, message) = condition(&object, "Ready").unwrap();
    assert!(
        message.contains("exit code 7") && !object["status"].to_string().contains("canary"),
        "{message}"
    );
}
