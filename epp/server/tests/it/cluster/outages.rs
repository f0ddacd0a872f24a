//! The API server is away, does not serve the kind, or denies access.

use llmd_e2e_cluster::Cluster;
use llmd_epp::health::ServingStatus;

use super::rig::{BARE, CLUSTER, Log, POOL, PORT, SELECTOR, Site};

#[tokio::test]
async fn an_api_server_that_restarts_drops_no_endpoint() {
    let cluster = Cluster::api().await.expect("a cluster");
    let site = Site::on(&cluster).await;
    let first = site.ready_pod("first", "a").await;
    let picker = site.picker(SELECTOR).await;
    let mut members = vec![format!("first-rank-0 {first}:{PORT}")];
    picker.wait_for_endpoints(&members).await;
    picker
        .wait_for_metric("llm_d_epp_kubernetes_watch_up{resource=\"pods\"} 1")
        .await;

    cluster.stop_apiserver().await.expect("stopped");
    picker
        .wait_for_metric("llm_d_epp_kubernetes_watch_up{resource=\"pods\"} 0")
        .await;
    picker
        .wait_for_metric("llm_d_epp_kubernetes_watch_errors_total{reason=\"unreachable\",resource=\"pods\"}")
        .await;
    picker.wait_for_endpoints(&members).await;
    assert_eq!(picker.destination().await, Some(format!("{first}:{PORT}")));
    picker.wait_for("readiness", ServingStatus::Serving).await;

    cluster.start_apiserver().await.expect("started");
    let second = site.ready_pod("second", "a").await;
    members.push(format!("second-rank-0 {second}:{PORT}"));
    picker.wait_for_endpoints(&members).await;
    picker
        .wait_for_metric("llm_d_epp_kubernetes_watch_up{resource=\"pods\"} 1")
        .await;
}

#[tokio::test]
async fn a_missing_crd_is_named_with_the_command_that_installs_it() {
    let log = Log::start();
    let site = Site::on(BARE.get().await.expect("a cluster")).await;
    let picker = site.picker(POOL).await;
    log.wait_for("does not serve inferencepools.inference.networking.k8s.io/v1")
        .await;
    log.wait_for("llmd crds apply --with gaie").await;
    picker.wait_for("readiness", ServingStatus::NotServing).await;
    picker
        .wait_for_metric("llm_d_epp_kubernetes_watch_errors_total{reason=\"not_served\"")
        .await;
}

#[tokio::test]
async fn denied_access_is_named_and_found_when_it_is_granted() {
    let log = Log::start();
    let site = Site::on(CLUSTER.get().await.expect("a cluster")).await;
    let address = site.ready_pod("p", "a").await;
    let name = format!("picker-{}", site.namespace.name());
    let user = site.namespace.cluster().user(&name, None).expect("a user");
    let picker = site.picker_as(user.kubeconfig(), SELECTOR).await;
    let words = format!(
        "access to pods in namespace '{}' is denied: allow get, list and watch",
        site.namespace.name()
    );
    log.wait_for(&words).await;
    picker.wait_for("readiness", ServingStatus::NotServing).await;

    let role = [
        "create",
        "role",
        "pods",
        "--verb=get,list,watch",
        "--resource=pods",
    ];
    site.namespace.kubectl(role).await.expect("a role");
    let binding = [
        "create",
        "rolebinding",
        "pods",
        "--role=pods",
        &format!("--user={name}"),
    ];
    site.namespace.kubectl(binding).await.expect("a binding");
    picker
        .wait_for_endpoints(&[format!("p-rank-0 {address}:{PORT}")])
        .await;
    picker.wait_for("readiness", ServingStatus::Serving).await;
}

/// The YAML block with the picker's rules in its documentation.
fn documented_rules() -> &'static str {
    let page = include_str!("../../../../../docs/epp.md");
    let (_, rest) = page
        .split_once("```yaml\nrules:\n")
        .expect("the role is documented");
    rest.split("```").next().expect("the block ends")
}

#[tokio::test]
async fn the_documented_role_is_enough() {
    let site = Site::on(CLUSTER.get().await.expect("a cluster")).await;
    site.pool("a", &[PORT]).await;
    let address = site.ready_pod("p", "a").await;
    let name = format!("documented-{}", site.namespace.name());
    let user = site.namespace.cluster().user(&name, None).expect("a user");
    let role = format!(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {{name: picker}}\nrules:\n{}\n---\n\
         apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {{name: picker}}\n\
         roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: picker}}\n\
         subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: {name}}}]\n",
        documented_rules()
    );
    site.namespace.apply(&role).await.expect("applied");
    let flags = format!("{POOL} --ha-enable-leader-election");
    let picker = site.picker_as(user.kubeconfig(), &flags).await;
    picker.wait_for("readiness", ServingStatus::Serving).await;
    picker
        .wait_for_endpoints(&[format!("p-rank-0 {address}:{PORT}")])
        .await;
    let page = picker.get("/metrics").await;
    assert!(!page.contains("reason=\"forbidden\""), "{page}");
}
