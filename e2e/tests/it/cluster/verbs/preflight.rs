//! `llmd preflight`.

use serde_json::Value;

use llmd_e2e_cluster::{Cluster, Shared};

use super::{DEPLOYMENT, file, json, namespace, run};

/// Two nodes with eight GPUs each.
static NODES: Shared = Shared::new(|| Cluster::control(2));

const ON_GPUS: &str = "
apiVersion: llmd.dev/v1alpha1
kind: LLMDeployment
metadata: {name: big}
spec:
  path: optimized-baseline
  model: {uri: 'pvc://models/big', name: big}
";

fn checks(said: &str) -> Vec<Value> {
    json(said)[0]["checks"].as_array().unwrap().clone()
}

fn of<'a>(checks: &'a [Value], name: &str, verdict: &str) -> &'a Value {
    let found = checks
        .iter()
        .find(|one| one["check"] == name && one["verdict"] == verdict);
    found.unwrap_or_else(|| panic!("no check {name} with {verdict} in {checks:#?}"))
}

#[tokio::test]
async fn what_needs_nothing_special_passes() {
    let namespace = namespace().await;
    let document = file(DEPLOYMENT);
    let path = document.path().to_str().unwrap();
    let (code, said, complaint) = run(&namespace, &["preflight", "-f", path, "--output=json"]).await;
    assert_eq!(code, 0, "{said}{complaint}");
    let objects = namespace
        .kubectl(["get", "pods,deployments", "--output=name"])
        .await
        .unwrap();
    assert!(!objects.contains("chat"), "a check made {objects}");
}

#[tokio::test]
async fn what_is_missing_is_named_with_its_fix() {
    let namespace = namespace().await;
    namespace
        .apply(
            "
apiVersion: v1
kind: ResourceQuota
metadata: {name: small}
spec: {hard: {pods: '1'}}
",
        )
        .await
        .unwrap();
    let document = file(ON_GPUS);
    let path = document.path().to_str().unwrap();
    let (code, said, complaint) = run(&namespace, &["preflight", "-f", path, "--output=json"]).await;
    assert_eq!(code, 1, "{said}{complaint}");
    let checks = checks(&said);
    let quota = of(&checks, "quota", "failed");
    assert!(quota["found"].as_str().unwrap().contains("small"), "{quota}");
    let claim = of(&checks, "claim", "failed");
    assert!(claim["found"].as_str().unwrap().contains("models"), "{claim}");
    for failed in checks.iter().filter(|one| one["verdict"] == "failed") {
        assert!(!failed["fix"].as_str().unwrap_or_default().is_empty(), "{failed}");
    }
}

#[tokio::test]
async fn a_namespace_that_forbids_the_pods_says_so_before_they_are_there() {
    let namespace = namespace().await;
    let level = "pod-security.kubernetes.io/enforce=restricted";
    let name = namespace.name().to_owned();
    namespace
        .kubectl(["label", "namespace", &name, level])
        .await
        .unwrap();
    let document = file(ON_GPUS);
    let path = document.path().to_str().unwrap();
    let (_, said, _) = run(&namespace, &["preflight", "-f", path, "--output=json"]).await;
    let checks = checks(&said);
    let level = of(&checks, "pod security", "ok");
    assert!(level["found"].as_str().unwrap().contains("restricted"), "{level}");
}

/// Pods of `big` with as many GPUs each as `tensor` says.
fn on_gpus(tensor: u32, replicas: u32, more: &str) -> String {
    let pool = format!("{{name: decode, replicas: {replicas}, parallelism: {{tensor: {tensor}}}}}");
    format!("{}  pools: [{pool}]\n{more}", ON_GPUS.trim_start())
}

#[tokio::test]
async fn the_need_is_held_against_the_nodes_that_are_there() {
    let cluster = NODES.get().await.unwrap();
    let namespace = cluster.namespace().await.unwrap();
    let tainted = cluster.add_fake_nodes(1, &[("pool", "dear")], 8).await.unwrap();
    let taint = ["taint", "node", &tainted[0], "dear=yes:NoSchedule"];
    cluster.kubectl(taint).await.unwrap();
    let selector = "  scheduling: {nodeSelector: {pool: dear}";
    let toleration = "tolerations: [{key: dear, operator: Exists}]}";
    for (document, verdict, part) in [
        (on_gpus(8, 2, ""), "ok", "big-decode: 2 of 3 nodes fit"),
        (on_gpus(4, 4, ""), "ok", "big-decode: 2 of 3 nodes fit"),
        (on_gpus(8, 3, ""), "failed", "the nodes hold 2 even when empty"),
        (
            on_gpus(16, 1, ""),
            "failed",
            "a pod needs 16 nvidia.com/gpu, the largest of 2 fitting nodes has 8",
        ),
        (
            on_gpus(1, 1, "  scheduling: {nodeSelector: {pool: none}}\n"),
            "failed",
            "none of 3 nodes has the labels",
        ),
        (
            on_gpus(1, 1, &format!("{selector}}}\n")),
            "failed",
            "have taints, such as dear",
        ),
        (
            on_gpus(8, 1, &format!("{selector}, {toleration}\n")),
            "ok",
            "big-decode: 1 of 3 nodes fit",
        ),
    ] {
        let file = file(&document);
        let path = file.path().to_str().unwrap();
        let (_, said, complaint) = run(&namespace, &["preflight", "-f", path, "--output=json"]).await;
        assert!(said.starts_with('['), "{document}{said}{complaint}");
        let checks = checks(&said);
        let of_pool = checks
            .iter()
            .find(|one| one["check"] == "nodes" && one["found"].as_str().unwrap().starts_with("big-decode"));
        let check = of_pool.unwrap_or_else(|| panic!("{document}: {checks:#?}"));
        assert!(
            check["verdict"] == verdict && check["found"].as_str().unwrap().contains(part),
            "{document}: {check}"
        );
    }
}
