//! An API server by itself.

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::Api;
use kube::api::{ListParams, PostParams};
use llmd_e2e_cluster::{Cluster, Shared, poll_until};

static CLUSTER: Shared = Shared::new(|| Cluster::api().with_foreign_crds());

#[tokio::test]
async fn a_namespace_stores_objects_and_admits_pods() {
    let namespace = CLUSTER.get().await.unwrap().namespace().await.unwrap();
    let client = namespace.client().await.unwrap();
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let map =
        serde_json::from_value(serde_json::json!({"metadata": {"name": "a"}, "data": {"k": "v"}})).unwrap();
    maps.create(&PostParams::default(), &map).await.unwrap();
    assert_eq!(maps.get("a").await.unwrap().data.unwrap()["k"], "v");

    let pods: Api<Pod> = Api::default_namespaced(client);
    let pod = serde_json::from_value(
        serde_json::json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}),
    )
    .unwrap();
    pods.create(&PostParams::default(), &pod).await.unwrap();
}

#[tokio::test]
async fn our_kinds_and_foreign_kinds_are_served() {
    let cluster = CLUSTER.get().await.unwrap();
    let served = cluster.kubectl(["api-resources", "-o", "name"]).await.unwrap();
    for kind in [
        "llmdeployments.llmd.dev",
        "inferencepools.inference.networking.k8s.io",
        "inferenceobjectives.inference.networking.x-k8s.io",
        "httproutes.gateway.networking.k8s.io",
        "leaderworkersets.leaderworkerset.x-k8s.io",
        "disaggregatedsets.disaggregatedset.x-k8s.io",
        "scaledobjects.keda.sh",
    ] {
        assert!(
            served.lines().any(|line| line == kind),
            "{kind} is not in:\n{served}"
        );
    }
}

#[tokio::test]
async fn a_user_may_do_what_it_is_allowed() {
    let namespace = CLUSTER.get().await.unwrap().namespace().await.unwrap();
    let user = namespace.cluster().user("alice", Some("readers")).unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(user.client().await.unwrap(), namespace.name());
    let refused = maps.list(&ListParams::default()).await.unwrap_err();
    assert!(refused.to_string().contains("alice"), "{refused}");

    namespace
        .kubectl(["create", "role", "read", "--verb=list", "--resource=configmaps"])
        .await
        .unwrap();
    namespace
        .kubectl(["create", "rolebinding", "read", "--role=read", "--group=readers"])
        .await
        .unwrap();
    poll_until("the role in force", || async {
        maps.list(&ListParams::default()).await.ok()
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn what_was_stored_survives_restarts() {
    let cluster = Cluster::api().without_our_crds().await.unwrap();
    let namespace = cluster.namespace().await.unwrap();
    namespace
        .kubectl(["create", "configmap", "kept", "--from-literal=k=v"])
        .await
        .unwrap();

    cluster.stop_apiserver().await.unwrap();
    assert!(
        cluster
            .kubectl(["get", "--raw", "/readyz", "--request-timeout=1s"])
            .await
            .is_err()
    );
    cluster.start_apiserver().await.unwrap();
    cluster.restart_etcd().await.unwrap();

    let value = namespace
        .kubectl(["get", "configmap", "kept", "-o", "jsonpath={.data.k}"])
        .await
        .unwrap();
    assert_eq!(value, "v");
    let served = cluster.kubectl(["api-resources", "-o", "name"]).await.unwrap();
    assert!(
        !served.contains("llmd.dev"),
        "our definitions were left out: {served}"
    );
}

#[tokio::test]
async fn helm_reads_the_cluster() {
    let namespace = CLUSTER.get().await.unwrap().namespace().await.unwrap();
    let releases = namespace
        .cluster()
        .helm(["list", "--namespace", namespace.name(), "-q"])
        .await
        .unwrap();
    assert_eq!(releases, "");
}
