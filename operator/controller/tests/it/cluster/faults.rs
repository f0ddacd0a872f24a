//! What is wrong is named in `Ready`, and gone after the fix.

use llmd_e2e_cluster::poll_until;
use serde_json::json;

use super::rig::{CLUSTER, SIMULATED, condition, site, wait_for};

#[tokio::test]
async fn a_wrong_spec_is_named_and_does_not_stop_the_others() {
    let (namespace, _operator) = site().await;
    let wrong = SIMULATED
        .replace("demo", "wrong")
        .replace("path: simulated", "path: simulatd");
    namespace.apply(&wrong).await.unwrap();
    namespace.apply(SIMULATED).await.unwrap();
    wait_for(&namespace, "demo", "True", "Serving").await;
    let object = wait_for(&namespace, "wrong", "False", "simulated").await;
    assert_eq!(condition(&object, "Ready").unwrap().1, "InvalidSpec");
    assert_eq!(condition(&object, "Stalled").unwrap().0, "True");
    namespace
        .apply(&SIMULATED.replace("demo", "wrong"))
        .await
        .unwrap();
    let object = wait_for(&namespace, "wrong", "True", "Serving").await;
    assert!(condition(&object, "Stalled").is_none());
}

#[tokio::test]
async fn a_wrong_picker_configuration_is_named() {
    let (namespace, _operator) = site().await;
    let config = json!({"apiVersion": "inference.networking.x-k8s.io/v1alpha1", "kind": "EndpointPickerConfig",
        "plugins": [{"type": "queue-scoorer"}], "schedulingProfiles": [{"name": "default", "plugins": [{"pluginRef": "queue-scoorer"}]}]});
    let router = json!({"epp": {"config": {"inline": config}}});
    let text = format!("{}  router: {router}\n", SIMULATED.trim_start());
    namespace.apply(&text).await.unwrap();
    let object = wait_for(&namespace, "demo", "False", "queue-scoorer").await;
    assert_eq!(condition(&object, "Ready").unwrap().1, "InvalidSpec");
}

#[tokio::test]
async fn missing_accelerators_are_named_and_come() {
    let (namespace, _operator) = site().await;
    let text = "
apiVersion: llmd.dev/v1alpha1
kind: LLMDeployment
metadata: {name: demo}
spec:
  model: {uri: 'hf://org/model'}
  pools:
  - name: decode
    replicas: 1
    parallelism: {tensor: 16}
";
    namespace.apply(text).await.unwrap();
    let object = wait_for(&namespace, "demo", "False", "nvidia.com/gpu").await;
    let (_, reason, message) = condition(&object, "Ready").unwrap();
    assert_eq!(reason, "Unschedulable");
    assert!(
        message.starts_with("decode 0/1 ready: cannot schedule"),
        "{message}"
    );
    let fewer = text.replace("tensor: 16", "tensor: 1");
    namespace.apply(&fewer).await.unwrap();
    wait_for(&namespace, "demo", "True", "decode 1/1").await;
}

#[tokio::test]
async fn a_used_up_quota_is_named() {
    let (namespace, _operator) = site().await;
    namespace
        .kubectl(["create", "quota", "few", "--hard=pods=1"])
        .await
        .unwrap();
    // Until its controller has counted, a quota allows everything.
    poll_until("the quota in force", || async {
        let hard = ["get", "quota", "few", "-ojsonpath={.status.hard.pods}"];
        (namespace.kubectl(hard).await.ok()? == "1").then_some(())
    })
    .await
    .unwrap();
    namespace.apply(SIMULATED).await.unwrap();
    let object = wait_for(&namespace, "demo", "False", "ResourceQuota few").await;
    assert_eq!(condition(&object, "Ready").unwrap().1, "QuotaExceeded");
    namespace.kubectl(["delete", "quota", "few"]).await.unwrap();
    namespace
        .kubectl(["rollout", "restart", "deployment"])
        .await
        .unwrap();
    wait_for(&namespace, "demo", "True", "Serving").await;
}

#[tokio::test]
async fn an_object_of_somebody_else_is_not_taken_over() {
    let namespace = CLUSTER.get().await.unwrap().namespace().await.unwrap();
    namespace
        .kubectl(["create", "service", "clusterip", "demo-epp", "--tcp=1:1"])
        .await
        .unwrap();
    let _operator = super::rig::operator(&namespace, &["--leader-elect=false"]).await;
    namespace.apply(SIMULATED).await.unwrap();
    let object = wait_for(
        &namespace,
        "demo",
        "False",
        "Service demo-epp exists and does not belong",
    )
    .await;
    assert_eq!(condition(&object, "ResourcesApplied").unwrap().0, "False");
    let port = "-ojsonpath={.spec.ports[0].port}";
    let port = namespace
        .kubectl(["get", "service/demo-epp", port])
        .await
        .unwrap();
    assert_eq!(port, "1", "untouched");
    namespace.kubectl(["delete", "service/demo-epp"]).await.unwrap();
    namespace
        .kubectl(["annotate", "llmd/demo", "test/again=1"])
        .await
        .unwrap();
    wait_for(&namespace, "demo", "True", "Serving").await;
}
