//! Our Endpoint Picker in Deployments that others render: nothing but the image is ours.
//!
//! A shell that a `preStop` hook starts is not in our image: the hook fails with an event, and the drain that
//! follows SIGTERM does what it was for.

mod engines;
mod kserve;
mod proxy;
mod router_chart;

use std::net::SocketAddr;

use llmd_e2e::{http, tools};
use llmd_e2e_cluster::{Images, Namespace, poll_until, poll_within};
use serde_json::{Value, json};

use self::router_chart::Release;
use super::support::{BARE, FOREIGN, PYTHON, namespace};
use crate::up::support::{chat, engine};

/// Upstream's readiness waits half a minute, and pods of a busy machine start slowly.
const START: std::time::Duration = std::time::Duration::from_secs(90);

/// Objects without a namespace go with it nevertheless.
async fn apply(namespace: &Namespace, mut objects: Vec<Value>) {
    let uid = [
        "get",
        "namespace",
        namespace.name(),
        "-o",
        "jsonpath={.metadata.uid}",
    ];
    let uid = namespace.kubectl(uid).await.unwrap();
    let owner = json!([{"apiVersion": "v1", "kind": "Namespace", "name": namespace.name(), "uid": uid}]);
    for object in &mut objects {
        if object["kind"]
            .as_str()
            .is_some_and(|kind| kind.starts_with("Cluster"))
        {
            object["metadata"]["ownerReferences"] = owner.clone();
        }
    }
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    namespace.apply(&list.to_string()).await.unwrap();
}

/// Waits for a number of ready pods with a label, and returns their names.
async fn ready(namespace: &Namespace, selector: &str, count: usize) -> Vec<String> {
    poll_within(&format!("{count} ready pods of {selector}"), START, || async {
        let pods = ["get", "pods", "-l", selector, "-o", "json"];
        let pods: Value = serde_json::from_str(&namespace.kubectl(pods).await.ok()?).ok()?;
        let is_ready = |pod: &&Value| {
            let conditions = pod["status"]["conditions"].as_array();
            conditions.is_some_and(|all| {
                all.iter()
                    .any(|one| one["type"] == "Ready" && one["status"] == "True")
            })
        };
        let names: Vec<String> = pods["items"]
            .as_array()?
            .iter()
            .filter(is_ready)
            .filter_map(|pod| pod["metadata"]["name"].as_str().map(str::to_owned))
            .collect();
        (names.len() == count).then_some(names)
    })
    .await
    .unwrap()
}

/// The official client streams, and a long common prefix goes to one engine of several.
async fn routes(address: SocketAddr) {
    let url = format!("http://{address}/v1");
    let said = tokio::task::spawn_blocking(move || tools::python(PYTHON, &url))
        .await
        .unwrap();
    assert_eq!(said.trim(), "streamed");
    let ask = async |prompt: String| engine(&chat(address, "test/model", &prompt, 4).await.unwrap());
    let prefix = "You are a patient assistant who answers in full sentences. ".repeat(40);
    let first = ask(format!("{prefix} What is one?")).await;
    for question in ["What is two?", "What is three?", "What is four?"] {
        assert_eq!(ask(format!("{prefix} {question}")).await, first);
    }
    poll_until("an answer of the other engine", || async {
        let nonce = fastrand::u64(..).to_string().repeat(40);
        (ask(nonce).await != first).then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_standalone_router_chart_runs_our_picker() {
    let (namespace, images) = namespace(&BARE).await;
    let image = images.reference("llmd-epp");
    let release = Release::new("demo", &namespace, &image);
    apply(&namespace, engines::objects(&images, &Release::engine_labels())).await;
    apply(&namespace, release.standalone()).await;
    ready(&namespace, "llm-d-router-standalone=demo-epp", 1).await;
    let address = namespace.service("demo-epp", 80).await.unwrap();
    routes(address).await;

    // the chart leaves authentication of the metrics on
    let metrics = namespace.service("demo-epp", 9090).await.unwrap();
    let answer = http::get(metrics, "/metrics").await.unwrap();
    assert_eq!(answer.status, 401, "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_router_chart_runs_our_pickers_of_which_one_leads() {
    let (namespace, images) = namespace(&FOREIGN).await;
    let image = images.reference("llmd-epp");
    let release = Release::new("demo", &namespace, &image);
    apply(&namespace, engines::objects(&images, &Release::engine_labels())).await;
    apply(&namespace, release.gateway(2)).await;
    apply(&namespace, proxy::deployment("demo-epp")).await;
    let selector = "llm-d-router-gateway=demo-epp";
    let leader = ready(&namespace, selector, 1).await.remove(0);
    let address = namespace.service(proxy::NAME, 80).await.unwrap();
    routes(address).await;

    namespace
        .kubectl(["delete", "pod", &leader, "--wait=false"])
        .await
        .unwrap();
    poll_within("another leader", START, || async {
        let names = ready(&namespace, selector, 1).await;
        (names != [leader.clone()]).then_some(())
    })
    .await
    .unwrap();
    poll_until("an answer through the other leader", || async {
        let answer = chat(address, "test/model", "hello", 4).await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await
    .unwrap();
}

/// What `KServe` makes of an `LLMInferenceService` with a scheduler, once with its certificate and once with our own.
async fn kserve(tls: bool) {
    let (namespace, images): (Namespace, Images) = namespace(&FOREIGN).await;
    let service = kserve::Service {
        name: "granite",
        namespace: namespace.name(),
        image: &images.reference("llmd-epp"),
        tls,
    };
    apply(&namespace, engines::objects(&images, &service.engine_labels())).await;
    apply(&namespace, service.objects()).await;
    apply(&namespace, proxy::deployment("granite-epp-service")).await;
    let selector = "app.kubernetes.io/component=llminferenceservice-router-scheduler";
    ready(&namespace, selector, 1).await;
    routes(namespace.service(proxy::NAME, 80).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scheduler_of_kserve_is_our_picker() {
    kserve(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scheduler_of_kserve_with_tls_is_our_picker() {
    kserve(true).await;
}
