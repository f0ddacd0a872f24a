//! Pods come and go.

use llmd_epp::health::ServingStatus;
use serde_json::json;

use super::rig::{BARE, CLUSTER, POOL, PORT, SELECTOR, Site, fresh_address};
use crate::engine::{Engine, Script};
use crate::picker::CHAT;
use crate::proxy::rig::{post, send_to, text};

#[tokio::test]
async fn a_selector_needs_no_foreign_kind_and_follows_readiness() {
    let site = Site::on(BARE.get().await.expect("a cluster")).await;
    let picker = site.picker(SELECTOR).await;
    picker.wait_for("readiness", ServingStatus::Serving).await;
    let address = site.pod("decode-0", "a").await;
    site.ready_pod("other", "b").await;
    assert_eq!(picker.rejection().await, Some(503));

    let member = format!("decode-0-rank-0 {address}:{PORT}");
    site.status("decode-0", address, true).await;
    picker.wait_for_endpoints(std::slice::from_ref(&member)).await;
    assert_eq!(picker.destination().await, Some(format!("{address}:{PORT}")));

    site.status("decode-0", address, false).await;
    picker.wait_for_endpoints(&[]).await;
    site.status("decode-0", address, true).await;
    picker.wait_for_endpoints(&[member]).await;

    // A finalizer keeps the pod: what takes it out is the deletion time stamp.
    site.patch_pod(
        "decode-0",
        &json!({"metadata": {"finalizers": ["llmd.dev/test"]}}),
        false,
    )
    .await;
    site.delete_pod("decode-0").await;
    picker.wait_for_endpoints(&[]).await;
    let left = site.namespace.kubectl(["get", "pod", "decode-0"]).await;
    assert!(left.is_ok(), "the pod is still there");
    site.patch_pod("decode-0", &json!({"metadata": {"finalizers": null}}), false)
        .await;
}

#[tokio::test]
async fn a_new_address_and_new_labels_of_a_pod_are_taken_over() {
    let site = Site::on(BARE.get().await.expect("a cluster")).await;
    let picker = site.picker(SELECTOR).await;
    let old = site.ready_pod("p", "a").await;
    picker
        .wait_for_endpoints(&[format!("p-rank-0 {old}:{PORT}")])
        .await;
    let new = fresh_address();
    site.status("p", new, true).await;
    picker
        .wait_for_endpoints(&[format!("p-rank-0 {new}:{PORT}")])
        .await;
    site.patch_pod("p", &json!({"metadata": {"labels": {"app": "b"}}}), false)
        .await;
    picker.wait_for_endpoints(&[]).await;
}

#[tokio::test]
async fn an_inference_pool_decides_pods_and_ports_while_it_exists() {
    let site = Site::on(CLUSTER.get().await.expect("a cluster")).await;
    let (a, b) = (site.ready_pod("a", "a").await, site.ready_pod("b", "b").await);
    let picker = site.picker(POOL).await;
    picker
        .wait_for_metric(
            "llm_d_epp_kubernetes_watch_up{resource=\"inferencepools.inference.networking.k8s.io/v1\"} 1",
        )
        .await;
    picker.wait_for("readiness", ServingStatus::NotServing).await;

    site.pool("a", &[8000, 8001]).await;
    picker.wait_for("readiness", ServingStatus::Serving).await;
    let ranks = [format!("a-rank-0 {a}:8000"), format!("a-rank-1 {a}:8001")];
    picker.wait_for_endpoints(&ranks).await;
    let annotation = json!({"metadata": {"annotations": {"llm-d.ai/active-ports": "8001"}}});
    site.patch_pod("a", &annotation, false).await;
    picker.wait_for_endpoints(&ranks[1..]).await;

    site.pool("b", &[8000]).await;
    picker.wait_for_endpoints(&[format!("b-rank-0 {b}:8000")]).await;
    picker.wait_for("", ServingStatus::Serving).await;

    site.namespace
        .kubectl(["delete", "inferencepool", "pool"])
        .await
        .expect("deleted");
    picker.wait_for_endpoints(&[]).await;
    picker.wait_for("readiness", ServingStatus::NotServing).await;
    site.pool("a", &[8000]).await;
    picker.wait_for("readiness", ServingStatus::Serving).await;
    // Its only active port is not one of the pool's.
    assert_eq!(picker.rejection().await, Some(503));
}

/// The older group's CRD, cut down: the test clusters serve only the newer one.
const OLD_POOLS: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: inferencepools.inference.networking.x-k8s.io
  annotations: {api-approved.kubernetes.io: https://github.com/kubernetes-sigs/gateway-api-inference-extension/pull/1173}
spec:
  group: inference.networking.x-k8s.io
  names: {kind: InferencePool, plural: inferencepools, singular: inferencepool, listKind: InferencePoolList}
  scope: Namespaced
  versions:
  - name: v1alpha2
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
";
const OLD_POOL: &str = "
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferencePool
metadata: {name: pool}
spec: {selector: {app: a}, targetPortNumber: 8000, extensionRef: {name: epp}}
";

#[tokio::test]
async fn the_older_pool_is_read_as_well() {
    let cluster = CLUSTER.get().await.expect("a cluster");
    cluster.apply(OLD_POOLS).await.expect("applied");
    let wait = [
        "wait",
        "--for=condition=Established",
        "crd/inferencepools.inference.networking.x-k8s.io",
    ];
    cluster.kubectl(wait).await.expect("established");
    let site = Site::on(cluster).await;
    let address = site.ready_pod("p", "a").await;
    // It may take a moment until the API server serves a new kind.
    llmd_e2e_cluster::poll_until("the pool", || async { site.namespace.apply(OLD_POOL).await.ok() })
        .await
        .expect("applied");
    let picker = site
        .picker(&format!("{POOL} --pool-group=inference.networking.x-k8s.io"))
        .await;
    picker
        .wait_for_endpoints(&[format!("p-rank-0 {address}:{PORT}")])
        .await;
    picker.wait_for("readiness", ServingStatus::Serving).await;
}

#[tokio::test]
async fn a_leaving_pod_finishes_its_stream_and_gets_no_new_request() {
    let site = Site::on(BARE.get().await.expect("a cluster")).await;
    let (old, new) = (fresh_address(), fresh_address());
    let leaving = Engine::start_at((old, 0).into(), Script::Events(2)).await;
    let port = leaving.address.port();
    let staying = Engine::start_at((new, port).into(), Script::Json).await;
    site.engine_pod("leaving", "a", old).await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let proxy = free.expect("a port").port();
    let picker = site
        .picker(&format!(
            "--endpoint-selector=app=a --endpoint-target-ports={port} --metrics-endpoint-auth=false \
             --proxy-bind-address=127.0.0.1 --proxy-port={proxy}"
        ))
        .await;
    let address = picker.addresses.proxy.expect("a proxy");
    picker
        .wait_for_endpoints(&[format!("leaving-rank-0 {old}:{port}")])
        .await;
    let chat = || {
        send_to(
            address,
            post(
                "/v1/chat/completions",
                &[],
                std::str::from_utf8(CHAT).expect("text"),
            ),
        )
    };
    leaving.release();
    let stream = chat().await;
    assert_eq!(stream.status(), 200);

    site.engine_pod("staying", "a", new).await;
    site.patch_pod(
        "leaving",
        &json!({"metadata": {"finalizers": ["llmd.dev/test"]}}),
        false,
    )
    .await;
    site.delete_pod("leaving").await;
    picker
        .wait_for_endpoints(&[format!("staying-rank-0 {new}:{port}")])
        .await;
    for _ in 0..5 {
        assert_eq!(chat().await.status(), 200);
    }
    assert_eq!((leaving.received().len(), staying.received().len()), (1, 5));
    leaving.release();
    let body = text(stream).await;
    assert!(
        body.contains("\"n\":1") && body.ends_with("data: [DONE]\n\n"),
        "{body}"
    );
    site.patch_pod("leaving", &json!({"metadata": {"finalizers": null}}), false)
        .await;
}
