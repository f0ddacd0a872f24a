//! The API server and its store go away and come back under a running operator.

use llmd_e2e_cluster::Cluster;

use super::rig::{SIMULATED, children, operator, read, wait_for};

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_api_server_changes_nothing_and_the_operator_goes_on() {
    // Its own cluster: others would miss the API server.
    let cluster = Cluster::control(1).await.unwrap();
    let namespace = cluster.namespace().await.unwrap();
    let operator = operator(&namespace, &["--leader-elect=false"]).await;
    namespace.apply(SIMULATED).await.unwrap();
    let before = wait_for(&namespace, "demo", "True", "decode 2/2").await;
    let made = children(&namespace, "demo").await;

    cluster.restart_etcd().await.unwrap();
    cluster.stop_apiserver().await.unwrap();
    cluster.start_apiserver().await.unwrap();

    // Once it has acted on something new, it has looked at what was there before.
    namespace
        .apply(&SIMULATED.replace("demo", "other"))
        .await
        .unwrap();
    wait_for(&namespace, "other", "True", "Serving").await;
    let version = |object: &serde_json::Value| object["metadata"]["resourceVersion"].clone();
    let now = read(&namespace, "demo").await.unwrap();
    assert_eq!(version(&now), version(&before), "written for nothing");
    assert_eq!(children(&namespace, "demo").await, made, "written for nothing");

    namespace
        .kubectl(["scale", "llmd/demo", "--replicas=2"])
        .await
        .unwrap();
    wait_for(&namespace, "demo", "True", "decode 4/4").await;
    assert!(!operator.task.is_finished(), "the operator ended");
}
