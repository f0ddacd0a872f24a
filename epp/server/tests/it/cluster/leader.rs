//! Of two replicas one is ready.

use llmd_epp::health::ServingStatus;
use llmd_epp::run::RunError;

use super::rig::{BARE, SELECTOR, Site};
use crate::picker::PATIENCE;

#[tokio::test]
async fn one_of_two_is_ready_and_the_other_follows_when_it_ends() {
    let site = Site::on(BARE.get().await.expect("a cluster")).await;
    let address = site.ready_pod("p", "a").await;
    let flags = format!("{SELECTOR} --ha-enable-leader-election");
    let first = site.picker(&flags).await;
    first.wait_for("readiness", ServingStatus::Serving).await;
    let second = site.picker(&flags).await;
    second.wait_for("liveness", ServingStatus::Serving).await;
    second
        .wait_for("inference-extension", ServingStatus::ServiceUnknown)
        .await;
    // Its endpoints are known before it leads.
    second
        .wait_for_endpoints(&[format!("p-rank-0 {address}:8000")])
        .await;
    second.wait_for("readiness", ServingStatus::NotServing).await;
    let leases = site
        .namespace
        .kubectl(["get", "leases", "-o", "name"])
        .await
        .expect("leases");
    let name = format!("epp-{}-epp.llm-d.ai", site.namespace.name());
    assert!(leases.contains(&name), "{leases}");

    first.shutdown.cancel();
    let ended = tokio::time::timeout(PATIENCE, first.running)
        .await
        .expect("ends in time");
    ended.expect("joins").expect("in order");
    second.wait_for("readiness", ServingStatus::Serving).await;

    // Somebody takes the lease by force: a process that does not lead any more ends.
    let patch = r#"{"spec":{"holderIdentity":"thief","leaseDurationSeconds":3600}}"#;
    site.namespace
        .kubectl(["patch", "lease", &name, "--type=merge", "-p", patch])
        .await
        .expect("patched");
    let ended = tokio::time::timeout(PATIENCE, second.running)
        .await
        .expect("ends in time");
    assert!(matches!(ended.expect("joins"), Err(RunError::LeaseLost)));
}
