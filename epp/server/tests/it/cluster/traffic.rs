//! Objectives and model rewrites of the cluster reach requests.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use llmd_epp::discovery::kubernetes::traffic::Traffic;
use llmd_epp::flags::EppOptions;
use llmd_epp::health::ServingStatus;
use llmd_epp::kubernetes::watch_metrics::WatchMetrics;
use llmd_epp_core::traffic::TrafficRules;

use super::rig::{CLUSTER, POOL, Site};
use crate::role::until_async;
use llmd_e2e_cluster::Cluster;

const OLD: &str = "inference.networking.x-k8s.io";

fn objective(group: &str, name: &str, pool: &str, priority: i32) -> String {
    format!(
        "apiVersion: {group}/v1alpha2\nkind: InferenceObjective\nmetadata: {{name: {name}}}\n\
         spec: {{priority: {priority}, poolRef: {{group: inference.networking.k8s.io, name: {pool}}}}}\n---\n"
    )
}

fn rewrite(name: &str, from: &str, to: &str) -> String {
    format!(
        "apiVersion: {OLD}/v1alpha2\nkind: InferenceModelRewrite\nmetadata: {{name: {name}}}\n\
         spec:\n  poolRef: {{group: inference.networking.k8s.io, name: pool}}\n  rules:\n  \
         - matches: [{{model: {{type: Exact, value: {from}}}}}]\n    targets: [{{modelRewrite: {to}, weight: 1}}]\n---\n"
    )
}

#[tokio::test]
async fn the_objective_gives_the_priority_and_the_rewrite_the_model() {
    let site = Site::on(CLUSTER.get().await.expect("a cluster")).await;
    site.pool("a", &[8000]).await;
    site.ready_pod("p", "a").await;
    let objects = objective(OLD, "premium", "pool", 9) + &objective(OLD, "foreign", "other", 5);
    site.namespace
        .apply(&(objects + &rewrite("r", "m", "m-lora")))
        .await
        .expect("applied");
    let picker = site.picker(POOL).await;
    picker.wait_for("readiness", ServingStatus::Serving).await;

    // Ready means that rewrites are known: the first request is rewritten already.
    let mut call = picker.pick(&[("x-llm-d-inference-objective", "premium")]).await;
    let forwarded = call.forwarded().await;
    let body = String::from_utf8(forwarded.body).expect("text");
    assert!(body.contains("\"model\":\"m-lora\""), "{body}");
    picker
        .wait_for_metric("llm_d_epp_request_total{fairness_id=\"default-flow\",model_name=\"m\",priority=\"9\",target_model_name=\"m-lora\"} 1")
        .await;
    let mut call = picker.pick(&[("x-llm-d-inference-objective", "foreign")]).await;
    call.forwarded().await;
    picker
        .wait_for_metric("llm_d_epp_request_total{fairness_id=\"default-flow\",model_name=\"m\",priority=\"0\",target_model_name=\"m-lora\"} 1")
        .await;

    let kind = format!("inferencemodelrewrites.{OLD}");
    site.namespace
        .kubectl(["delete", &kind, "r"])
        .await
        .expect("deleted");
    until_async(async || {
        let mut call = picker.pick(&[]).await;
        let body = call.forwarded().await.body;
        (!String::from_utf8_lossy(&body).contains("m-lora")).then_some(())
    })
    .await;
}

/// The CRD of objectives in the new group; the old group's schema, cut down.
const NEW_KIND: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: inferenceobjectives.llm-d.ai}
spec:
  group: llm-d.ai
  names: {kind: InferenceObjective, plural: inferenceobjectives, singular: inferenceobjective, listKind: InferenceObjectiveList}
  scope: Namespaced
  versions:
  - name: v1alpha2
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
";

#[tokio::test]
async fn kinds_that_come_later_are_found_and_the_new_group_replaces_the_old_one() {
    let cluster = Cluster::api().with_foreign(&["gaie"]).await.expect("a cluster");
    let site = Site::on(&cluster).await;
    site.namespace
        .apply(&objective(OLD, "premium", "pool", 1))
        .await
        .expect("applied");
    let flags = format!("--pool-name=pool --pool-namespace={}", site.namespace.name());
    let options = EppOptions::parse(flags.split(' ').map(Into::into)).expect("valid");
    let rules = Arc::new(Mutex::new(TrafficRules::default()));
    let set = Arc::clone(&rules);
    let traffic = Traffic::start(
        site.namespace.client().await.expect("a client"),
        &options.pool,
        Box::new(move |new| *set.lock().expect("rules") = new),
        WatchMetrics::register(&prometheus::Registry::new()).expect("registers"),
        Duration::from_millis(100),
    );
    let priority = async |name: &str, expected: i32| {
        until_async(async || {
            let rules = rules.lock().expect("rules");
            (rules.priority(Some(name)) == expected).then_some(())
        })
        .await;
    };
    traffic.first().await;
    priority("premium", 1).await;

    cluster.apply(NEW_KIND).await.expect("applied");
    let wait = [
        "wait",
        "--for=condition=Established",
        "crd/inferenceobjectives.llm-d.ai",
        "--timeout=30s",
    ];
    cluster.kubectl(wait).await.expect("established");
    site.namespace
        .apply(&objective("llm-d.ai", "fast", "pool", 7))
        .await
        .expect("applied");
    priority("fast", 7).await;
    priority("premium", 0).await;

    cluster
        .kubectl(["delete", "crd", "inferenceobjectives.llm-d.ai", "--wait=false"])
        .await
        .expect("deleted");
    priority("premium", 1).await;
    priority("fast", 0).await;
}
