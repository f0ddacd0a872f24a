//! A control plane with fake nodes.

use llmd_e2e_cluster::{Cluster, Shared, poll_until};

static CLUSTER: Shared = Shared::new(|| Cluster::control(2));

const DEPLOYMENT: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      nodeSelector: {rack: r1}
      containers:
      - name: web
        image: example.com/web:1
        resources: {limits: {nvidia.com/gpu: "1"}}
"#;

#[tokio::test]
async fn a_deployment_becomes_available_on_fake_nodes_and_its_pods_go_with_it() {
    let cluster = CLUSTER.get().await.unwrap();
    let namespace = cluster.namespace().await.unwrap();
    let nodes = cluster.add_fake_nodes(1, &[("rack", "r1")], 1).await.unwrap();
    namespace.apply(DEPLOYMENT).await.unwrap();

    // One GPU, two pods that want one each.
    poll_until("one pod ready", || async {
        let ready = namespace
            .kubectl([
                "get",
                "deployment",
                "web",
                "-o",
                "jsonpath={.status.readyReplicas}",
            ])
            .await;
        (ready.ok()? == "1").then_some(())
    })
    .await
    .unwrap();
    cluster.set_gpus(&nodes[0], 2).await.unwrap();
    namespace
        .kubectl(["rollout", "status", "deployment/web", "--timeout=60s"])
        .await
        .unwrap();

    namespace.kubectl(["delete", "deployment", "web"]).await.unwrap();
    poll_until("no pod left", || async {
        let pods = namespace.kubectl(["get", "pods", "-o", "name"]).await.ok()?;
        pods.is_empty().then_some(())
    })
    .await
    .unwrap();
}

const LEADER_WORKER_SET: &str = r"
apiVersion: leaderworkerset.x-k8s.io/v1
kind: LeaderWorkerSet
metadata: {name: decode}
spec:
  replicas: 2
  leaderWorkerTemplate:
    size: 2
    workerTemplate:
      spec:
        containers: [{name: engine, image: example.com/engine:1}]
";

#[tokio::test]
async fn leader_worker_sets_become_available_and_wrong_ones_are_refused() {
    let cluster = Cluster::control(2).with_lws().await.unwrap();
    let namespace = cluster.namespace().await.unwrap();
    namespace.apply(LEADER_WORKER_SET).await.unwrap();
    namespace
        .kubectl([
            "wait",
            "--for=condition=Available",
            "leaderworkerset/decode",
            "--timeout=60s",
        ])
        .await
        .unwrap();
    let names = namespace
        .kubectl([
            "get",
            "pods",
            "-o",
            "jsonpath={.items[*].spec.containers[0].env[*].name}",
        ])
        .await
        .unwrap();
    assert!(
        names.contains("LWS_LEADER_ADDRESS"),
        "the webhook of pods acted: {names}"
    );
    let refused = namespace
        .apply(&LEADER_WORKER_SET.replace("size: 2", "size: 0"))
        .await
        .unwrap_err();
    assert!(
        refused.to_string().contains("vleaderworkerset.kb.io"),
        "{refused}"
    );
}
