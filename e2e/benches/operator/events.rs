//! From a change of a child to the status that says so.
//!
//! A pod loses its readiness; the controller manager writes that into the Deployment, and the operator into the
//! resource. Both are watched by one client; what counts is the time between the two.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use llmd_e2e_cluster::{Namespace, poll_within};
use serde_json::json;

use super::{DEPLOYMENTS, api, figure};

const EVENTS: usize = 60;
const BUDGET: f64 = 250.0;

/// When each resource was last seen with so many ready pods: by its Deployment, and by its own status.
type Seen = Arc<Mutex<HashMap<(String, bool), Instant>>>;

pub(crate) async fn measure(namespace: &Namespace) {
    let client = namespace.client().await.expect("a client");
    let (children, statuses) = (Seen::default(), Seen::default());
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace.name());
    let seen = Arc::clone(&children);
    let watch = watcher(
        deployments,
        watcher::Config::default().labels("app.kubernetes.io/component=modelserver"),
    );
    let child_watch = tokio::spawn(watch.touched_objects().for_each(move |object| {
        let object = object.expect("a watch");
        let ready = object
            .status
            .and_then(|status| status.ready_replicas)
            .unwrap_or(0)
            > 0;
        let name = object.metadata.name.unwrap_or_default();
        see(&seen, name.trim_end_matches("-decode"), ready);
        std::future::ready(())
    }));
    let seen = Arc::clone(&statuses);
    let watch = watcher(api(namespace).await, watcher::Config::default());
    let status_watch = tokio::spawn(watch.touched_objects().for_each(move |object| {
        let object = object.expect("a watch");
        let ready = object.data["status"]["summary"] == "decode 1/1";
        see(&seen, &object.metadata.name.unwrap_or_default(), ready);
        std::future::ready(())
    }));

    let pods: Api<Pod> = Api::namespaced(client, namespace.name());
    let list = pods
        .list(&ListParams::default().labels("app.kubernetes.io/component=modelserver"))
        .await
        .expect("pods");
    let by_owner: HashMap<String, String> = list
        .items
        .into_iter()
        .filter_map(|pod| {
            Some((
                pod.metadata.labels?.get("llmd.dev/deployment")?.clone(),
                pod.metadata.name?,
            ))
        })
        .collect();
    let mut random = fastrand::Rng::with_seed(4);
    let mut times = Vec::with_capacity(2 * EVENTS);
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    for _ in 0..EVENTS {
        ticks.tick().await;
        let name = format!("d{:04}", random.usize(0..DEPLOYMENTS));
        for ready in [false, true] {
            let start = Instant::now();
            let status = if ready { "True" } else { "False" };
            let patch = json!({"status": {"conditions": [{"type": "Ready", "status": status}]}});
            pods.patch_status(
                &by_owner[&name],
                &PatchParams::default(),
                &Patch::Strategic(patch),
            )
            .await
            .expect("a patched pod");
            let child = after(&children, &name, ready, start).await;
            let told = after(&statuses, &name, ready, start).await;
            times.push(told.saturating_duration_since(child).as_secs_f64() * 1e3);
        }
    }
    child_watch.abort();
    status_watch.abort();
    times.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
    let note = format!(
        "{} changes of random deployments, one a second, as one client sees both; P50 {:.0} ms",
        times.len(),
        at(0.5)
    );
    figure(
        "operator: child's change to status, P99, 1,000 deployments",
        at(0.99),
        "ms",
        Some(BUDGET),
        &note,
    );
}

fn see(seen: &Seen, name: &str, ready: bool) {
    let mut seen = seen.lock().expect("no panic");
    seen.insert((name.to_owned(), ready), Instant::now());
}

/// When `name` was seen in this state after `start`.
async fn after(seen: &Seen, name: &str, ready: bool, start: Instant) -> Instant {
    let key = (name.to_owned(), ready);
    poll_within("the change to arrive", Duration::from_secs(60), || async {
        let at = seen.lock().expect("no panic").get(&key).copied();
        at.filter(|at| *at >= start)
    })
    .await
    .expect("the change arrives")
}
