//! Pods of our own image.

use llmd_e2e_cluster::image::ENVOY;
use llmd_e2e_cluster::{Cluster, Shared, poll_until};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

static CLUSTER: Shared = Shared::new(|| Cluster::node(2));

fn deployment(image: &str) -> String {
    format!(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: sim}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: sim}}}}
  template:
    metadata: {{labels: {{app: sim}}}}
    spec:
      topologySpreadConstraints:
      - {{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {{matchLabels: {{app: sim}}}}}}
      securityContext: {{runAsNonRoot: true, seccompProfile: {{type: RuntimeDefault}}}}
      containers:
      - name: sim
        image: {image}
        args: [sim, --host, 0.0.0.0, --port, "8000", --model, m]
        securityContext: {{allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {{drop: [ALL]}}}}
        readinessProbe: {{httpGet: {{path: /health, port: 8000}}, periodSeconds: 1}}
        resources: {{limits: {{nvidia.com/gpu: "1"}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: sim}}
spec:
  selector: {{app: sim}}
  ports: [{{port: 80, targetPort: 8000}}]
"#
    )
}

#[tokio::test]
async fn pods_of_our_image_on_two_nodes_answer_through_a_service_and_by_name() {
    let cluster = CLUSTER.get().await.unwrap();
    let images = cluster.install_llmd().await.unwrap();
    let namespace = cluster.namespace().await.unwrap();
    namespace
        .apply(&deployment(&images.reference("llmd")))
        .await
        .unwrap();
    namespace
        .kubectl(["rollout", "status", "deployment/sim", "--timeout=60s"])
        .await
        .unwrap();
    let nodes = namespace
        .kubectl(["get", "pods", "-o", "jsonpath={.items[*].spec.nodeName}"])
        .await
        .unwrap();
    assert!(nodes.contains("n1") && nodes.contains("n2"), "{nodes}");

    let address = namespace.service("sim", 80).await.unwrap();
    poll_until("an answer through the Service", || async {
        let stream = tokio::net::TcpStream::connect(address).await.ok()?;
        let (read, mut write) = stream.into_split();
        write.write_all(b"GET /health HTTP/1.0\r\n\r\n").await.ok()?;
        let line = BufReader::new(read).lines().next_line().await.ok()??;
        line.contains(" 200 ").then_some(())
    })
    .await
    .unwrap();

    if !cluster.is_foreign() {
        let name = format!("sim.{}.svc.cluster.local", namespace.name());
        poll_until("the Service's name", || async {
            cluster.resolve(&name).await.ok()
        })
        .await
        .unwrap();
    }
}

#[tokio::test]
async fn envoy_is_there_under_the_name_that_pods_ask_for() {
    let cluster = CLUSTER.get().await.unwrap();
    cluster.install_envoy(ENVOY).await.unwrap();
    let namespace = cluster.namespace().await.unwrap();
    namespace
        .kubectl([
            "run",
            "envoy",
            "--restart=Never",
            "--image",
            ENVOY,
            "--image-pull-policy=IfNotPresent",
            "--",
            "--version",
        ])
        .await
        .unwrap();
    let said = poll_until("Envoy's version", || async {
        let phase = namespace
            .kubectl(["get", "pod", "envoy", "-o", "jsonpath={.status.phase}"])
            .await
            .ok()?;
        match phase.as_str() {
            "Succeeded" | "Failed" => Some(namespace.kubectl(["logs", "envoy"]).await),
            _ => None,
        }
    })
    .await
    .unwrap()
    .unwrap();
    assert!(said.contains("1.40.0"), "{said}");
}

#[tokio::test]
async fn a_group_of_pods_finds_its_leader_by_name() {
    let cluster = Cluster::node(2).with_lws().await.unwrap();
    let images = cluster.install_llmd().await.unwrap();
    let namespace = cluster.namespace().await.unwrap();
    let image = images.reference("llmd");
    namespace
        .apply(&format!(
            r#"
apiVersion: leaderworkerset.x-k8s.io/v1
kind: LeaderWorkerSet
metadata: {{name: decode}}
spec:
  leaderWorkerTemplate:
    size: 2
    workerTemplate:
      spec:
        containers:
        - {{name: engine, image: "{image}", args: [sim, --host, 0.0.0.0, --port, "8000", --model, m]}}
"#
        ))
        .await
        .unwrap();
    namespace
        .kubectl([
            "wait",
            "--for=condition=Available",
            "leaderworkerset/decode",
            "--timeout=60s",
        ])
        .await
        .unwrap();
    let leader = namespace
        .kubectl(["get", "pod", "decode-0", "-o", "jsonpath={.status.podIP}"])
        .await
        .unwrap();
    let name = format!("decode-0.decode.{}.svc.cluster.local", namespace.name());
    let address = poll_until("the leader's name", || async {
        cluster.resolve(&name).await.ok()
    })
    .await
    .unwrap();
    assert_eq!(address.to_string(), leader);
}
