//! Tier A: who leads, who follows, who gives up.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use llmd_e2e_cluster::{Cluster, Namespace, Shared, poll_until};
use llmd_lease::{Leadership, Timings, start};

static CLUSTER: Shared = Shared::new(Cluster::api);

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);

const QUICK: Timings = Timings {
    lease: Duration::from_secs(2),
    renew: Duration::from_millis(1500),
    retry: Duration::from_millis(100),
};

async fn candidate(namespace: &Namespace, identity: &str) -> Leadership {
    let client = namespace.client().await.expect("a client");
    start(client, namespace.name(), "l", identity, QUICK)
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect(what)
}

async fn lease(namespace: &Namespace) -> (String, i32) {
    let leases: Api<Lease> = Api::default_namespaced(namespace.client().await.expect("a client"));
    let spec = leases.get("l").await.expect("a lease").spec.expect("a spec");
    (
        spec.holder_identity.unwrap_or_default(),
        spec.lease_transitions.unwrap_or_default(),
    )
}

#[tokio::test]
async fn one_leads_and_the_other_takes_over_when_it_releases() {
    let namespace = CLUSTER
        .get()
        .await
        .expect("a cluster")
        .namespace()
        .await
        .expect("a namespace");
    let first = candidate(&namespace, "first").await;
    within("the first leads", first.acquired()).await;
    let second = candidate(&namespace, "second").await;
    assert_eq!(lease(&namespace).await, ("first".to_owned(), 0));
    assert!(first.is_leader() && !second.is_leader());

    within("the first is released", first.release()).await;
    within("the second leads", second.acquired()).await;
    assert!(second.is_leader());
    assert_eq!(lease(&namespace).await, ("second".to_owned(), 1));
}

#[tokio::test]
async fn a_leader_that_died_is_followed_when_its_lease_has_run_out() {
    let namespace = CLUSTER
        .get()
        .await
        .expect("a cluster")
        .namespace()
        .await
        .expect("a namespace");
    let first = candidate(&namespace, "first").await;
    within("the first leads", first.acquired()).await;
    let second = candidate(&namespace, "second").await;
    drop(first);
    assert_eq!(lease(&namespace).await.0, "first", "nobody gave it back");
    within("the second leads", second.acquired()).await;
    assert_eq!(lease(&namespace).await, ("second".to_owned(), 1));
}

#[tokio::test]
async fn a_leader_whose_lease_was_taken_or_cannot_be_renewed_has_lost() {
    let cluster = Cluster::api().await.expect("a cluster");
    let namespace = cluster.namespace().await.expect("a namespace");
    let first = candidate(&namespace, "first").await;
    within("the first leads", first.acquired()).await;
    let patch = r#"{"spec":{"holderIdentity":"thief","leaseDurationSeconds":3600}}"#;
    namespace
        .kubectl(["patch", "lease", "l", "--type=merge", "-p", patch])
        .await
        .expect("patched");
    within("the first has lost", first.lost()).await;
    assert!(!first.is_leader());

    namespace
        .kubectl(["delete", "lease", "l"])
        .await
        .expect("deleted");
    let second = candidate(&namespace, "second").await;
    within("the second leads", second.acquired()).await;
    cluster.stop_apiserver().await.expect("stopped");
    within("the second has lost", second.lost()).await;
    cluster.start_apiserver().await.expect("started");
    poll_until("the lease is still there", || async {
        (lease(&namespace).await.0 == "second").then_some(())
    })
    .await
    .expect("readable");
}
