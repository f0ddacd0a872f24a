//! Prefill and decode engines on real nodes: Envoy, picker, sidecars and simulators that hand KV blocks over.

mod groups;
mod kills;

use std::net::SocketAddr;

use llmd_e2e::poll::DEADLINE;
use llmd_e2e::tools;
use llmd_e2e_cluster::{Namespace, poll_until, poll_within};
use serde_json::json;

use super::operator::{BARE, FOREIGN};
use super::support::{Load, PYTHON};

const PAIRED: &str = "
apiVersion: llmd.dev/v1alpha1
kind: LLMDeployment
metadata: {name: pd}
spec:
  path: simulated-prefill-decode
  model: {name: test/model}
  rollout: {maxSurge: SURGE, maxUnavailable: AWAY}
";

async fn words(namespace: &Namespace, words: &[&str]) -> Vec<String> {
    let said = namespace.kubectl(words).await.unwrap_or_default();
    said.split_whitespace().map(str::to_owned).collect()
}

/// Pods of a role, by name.
async fn pods(namespace: &Namespace, role: &str) -> Vec<String> {
    let label = format!("-lllm-d.ai/role={role}");
    words(
        namespace,
        &["get", "pods", &label, "-ojsonpath={.items[*].metadata.name}"],
    )
    .await
}

/// A metric of the engine behind a pod's port, over all its labels; 0 where it does not answer.
async fn metric_of(namespace: &Namespace, pod: &str, port: u16, metric: &str) -> f64 {
    let page = format!(
        "/api/v1/namespaces/{}/pods/{pod}:{port}/proxy/metrics",
        namespace.name()
    );
    let page = namespace
        .kubectl(["get", "--raw", &page])
        .await
        .unwrap_or_default();
    let lines = page.lines().filter(|line| line.starts_with(metric));
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum::<f64>()
}

/// Sum of a metric over all engines of decode pods.
async fn decoded(namespace: &Namespace, metric: &str) -> f64 {
    let mut sum = 0.0;
    for pod in pods(namespace, "decode").await {
        sum += metric_of(namespace, &pod, 8200, metric).await;
    }
    sum
}

/// Applies the resource and waits until it serves; where its router is.
async fn ready(namespace: &Namespace, resource: &str) -> SocketAddr {
    namespace.apply(resource).await.unwrap();
    let ready = [
        "wait",
        "--for=condition=Ready",
        "llmdeployment/pd",
        "--timeout=60s",
    ];
    namespace.kubectl(ready).await.unwrap();
    namespace.service("pd-epp", 80).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn pairs_answer_and_move_to_another_revision_under_load() {
    moves("1", "0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pairs_move_to_another_revision_without_surge() {
    moves("0", "1").await;
}

/// How many requests each of these tests sends at least, with an edit every thousand.
const REQUESTS: &str = "LLMD_E2E_REQUESTS";

/// An edit of the engines under load: no request fails, and no decode engine was offered blocks of another revision.
async fn moves(surge: &str, away: &str) {
    let namespace = BARE.get().await.namespace().await.unwrap();
    let resource = PAIRED.replace("SURGE", surge).replace("AWAY", away);
    let address = ready(&namespace, &resource).await;
    let url = format!("http://{address}/v1");
    let said = tokio::task::spawn_blocking(move || tools::python(PYTHON, &url))
        .await
        .unwrap();
    assert_eq!(said.trim(), "streamed");

    let load = Load::start(address);
    poll_until("blocks that came from prefill engines", || async {
        (decoded(&namespace, "vllm:external_prefix_cache_queries_total").await > 0.0).then_some(())
    })
    .await
    .unwrap();
    let before = pods(&namespace, "decode").await;
    let edit = r#"{"spec":{"engine":{"args":{"seed":"7"}}}}"#;
    namespace
        .kubectl(["patch", "llmd/pd", "--type=merge", "-p", edit])
        .await
        .unwrap();
    poll_until("new pods of both roles, and no others", || async {
        let label = "-ojsonpath={.items[*].metadata.labels['llmd\\.dev/revision']}";
        let mut revisions = words(&namespace, &["get", "pods", "-lllmd.dev/pool", label]).await;
        let engines = revisions.len();
        revisions.dedup();
        let now = pods(&namespace, "decode").await;
        let moved = now.len() == 2 && now.iter().all(|pod| !before.contains(pod));
        (moved && revisions.len() == 1 && engines == 4).then_some(())
    })
    .await
    .unwrap();
    let asked = load.sent();
    poll_until("answers of the new revision", || async {
        (load.sent() > asked + 20).then_some(())
    })
    .await
    .unwrap();
    // More of the same, forth and back, for a longer look: docs/verification.
    let wanted: usize = std::env::var(REQUESTS).map_or(0, |count| count.parse().unwrap());
    for seed in 8.. {
        if load.sent() >= wanted {
            break;
        }
        let edit = json!({"spec": {"engine": {"args": {"seed": seed.to_string()}}}}).to_string();
        namespace
            .kubectl(["patch", "llmd/pd", "--type=merge", "-p", &edit])
            .await
            .unwrap();
        let asked = load.sent();
        poll_within("a thousand requests", 10 * DEADLINE, || async {
            (load.sent() >= wanted.min(asked + 1000)).then_some(())
        })
        .await
        .unwrap();
    }
    poll_until("both roles of one revision", || async {
        let label = "-ojsonpath={.items[*].metadata.labels['llmd\\.dev/revision']}";
        let mut revisions = words(&namespace, &["get", "pods", "-lllmd.dev/pool", label]).await;
        revisions.dedup();
        (revisions.len() == 1).then_some(())
    })
    .await
    .unwrap();
    assert!(
        decoded(&namespace, "llmd_sim_revision_mismatches_total")
            .await
            .abs()
            < 0.5
    );
    load.finish().await;
}
