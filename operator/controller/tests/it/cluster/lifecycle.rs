//! From apply to delete.

use llmd_e2e_cluster::poll_until;

use super::rig::{SIMULATED, children, condition, read, site, wait_for};

#[tokio::test]
async fn a_resource_becomes_owned_objects_and_ready_scales_stops_and_leaves_nothing() {
    let (namespace, _operator) = site().await;
    namespace.apply(SIMULATED).await.unwrap();
    let ready = wait_for(&namespace, "demo", "True", "Serving").await;
    assert_eq!(ready["status"]["summary"], "decode 2/2");
    let wide = ["get", "llmd", "demo", "-o", "wide", "--no-headers"];
    let wide = namespace.kubectl(wide).await.unwrap();
    assert!(wide.contains("test/model"), "{wide}");
    assert_eq!(ready["status"]["path"]["name"], "simulated");
    assert_eq!(
        ready["status"]["url"],
        format!("http://demo-epp.{}.svc/v1", namespace.name())
    );
    assert!(condition(&ready, "Reconciling").is_none() && condition(&ready, "Stalled").is_none());
    let made = children(&namespace, "demo").await;
    assert!(made.len() >= 8, "{made:?}");
    assert!(made.iter().all(|line| line.ends_with(" demo")), "owned: {made:?}");

    // The multiplier of a path with two engines.
    let scale = ["scale", "llmd/demo", "--replicas=2"];
    namespace.kubectl(scale).await.unwrap();
    let scaled = wait_for(&namespace, "demo", "True", "decode 4/4").await;
    assert_eq!(scaled["status"]["replicas"], 2);

    let stop = [
        "patch",
        "llmd/demo",
        "--type=merge",
        "-p",
        r#"{"spec":{"stopped":true}}"#,
    ];
    namespace.kubectl(stop).await.unwrap();
    let stopped = wait_for(&namespace, "demo", "True", "Stopped").await;
    assert_eq!(stopped["status"]["replicas"], 0);

    namespace
        .kubectl(["delete", "llmd", "demo", "--timeout=60s"])
        .await
        .unwrap();
    poll_until("nothing left", || async {
        children(&namespace, "demo").await.is_empty().then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn what_somebody_changes_or_deletes_is_set_right_and_nothing_else_is_written() {
    let (namespace, _operator) = site().await;
    namespace.apply(SIMULATED).await.unwrap();
    wait_for(&namespace, "demo", "True", "Serving").await;
    let patch = r#"{"spec":{"template":{"spec":{"terminationGracePeriodSeconds":77}}}}"#;
    let drift = ["patch", "deployment/demo-decode", "--type=merge", "-p", patch];
    namespace.kubectl(drift).await.unwrap();
    namespace
        .kubectl(["delete", "configmap/demo-epp", "service/demo-epp"])
        .await
        .unwrap();
    poll_until("both set right", || async {
        let grace = "-ojsonpath={.spec.template.spec.terminationGracePeriodSeconds}";
        let grace = namespace
            .kubectl(["get", "deployment/demo-decode", grace])
            .await
            .ok()?;
        let names = ["get", "configmap/demo-epp", "service/demo-epp", "-oname"];
        let there = namespace.kubectl(names).await.is_ok();
        (there && grace.trim() != "77").then_some(())
    })
    .await
    .unwrap();
    poll_until("an event that says so", || async {
        let events = ["get", "events", "-ojsonpath={.items[*].reason}"];
        let reasons = namespace.kubectl(events).await.ok()?;
        reasons.contains("DriftCorrected").then_some(())
    })
    .await
    .unwrap();
    wait_for(&namespace, "demo", "True", "Serving").await;

    // A neighbour makes the operator look at everything in between.
    let before = (children(&namespace, "demo").await, version(&namespace).await);
    namespace
        .apply(&SIMULATED.replace("demo", "other"))
        .await
        .unwrap();
    wait_for(&namespace, "other", "True", "Serving").await;
    let poke = ["annotate", "pods", "-lllmd.dev/deployment=demo", "test/poke=1"];
    namespace.kubectl(poke).await.unwrap();
    namespace.kubectl(["delete", "llmd", "other"]).await.unwrap();
    let after = (children(&namespace, "demo").await, version(&namespace).await);
    assert_eq!(before, after);
}

async fn version(namespace: &llmd_e2e_cluster::Namespace) -> String {
    let object = read(namespace, "demo").await.unwrap();
    object["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_operator_that_dies_and_comes_back_changes_nothing() {
    let (namespace, first) = site().await;
    namespace.apply(SIMULATED).await.unwrap();
    wait_for(&namespace, "demo", "True", "Serving").await;
    first.task.abort();
    let before = children(&namespace, "demo").await;
    let _second = super::rig::operator(&namespace, &["--leader-elect=false"]).await;
    namespace
        .apply(&SIMULATED.replace("demo", "other"))
        .await
        .unwrap();
    wait_for(&namespace, "other", "True", "Serving").await;
    assert_eq!(before, children(&namespace, "demo").await);
}

#[tokio::test]
async fn a_pool_that_is_taken_out_of_the_spec_is_pruned() {
    let (namespace, _operator) = site().await;
    let extra = "  pools:\n  - name: extra\n    replicas: 1\n";
    namespace
        .apply(&format!("{}{extra}", SIMULATED.trim_end().to_owned() + "\n"))
        .await
        .unwrap();
    wait_for(&namespace, "demo", "True", "extra 1/1").await;
    let patch = r#"[{"op":"remove","path":"/spec/pools"}]"#;
    let remove = ["patch", "llmd/demo", "--type=json", "-p", patch];
    namespace.kubectl(remove).await.unwrap();
    poll_until("the pool's Deployment is gone", || async {
        let made = children(&namespace, "demo").await;
        (!made.iter().any(|line| line.contains("demo-extra"))).then_some(())
    })
    .await
    .unwrap();
    wait_for(&namespace, "demo", "True", "decode 2/2").await;
}
