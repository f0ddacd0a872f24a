//! Counts of requests: what the API server took, and what the operator did.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use llmd_e2e::{Process, http};
use llmd_e2e_cluster::{Cluster, poll_within};

/// Server-side applies that the API server has taken so far. Nobody but the operator and this program sends any.
pub(crate) async fn applied(cluster: &Cluster) -> f64 {
    let page = cluster
        .kubectl(["get", "--raw", "/metrics"])
        .await
        .expect("the API server's metrics");
    let series = page
        .lines()
        .filter(|line| line.starts_with("apiserver_request_total{"));
    sum(series.filter(|line| line.contains("verb=\"APPLY\"")))
}

/// Waits until nothing was applied for `quiet`.
pub(crate) async fn settled(cluster: &Cluster, quiet: Duration, patience: Duration) {
    let last = Cell::new((applied(cluster).await, Instant::now()));
    poll_within("the last apply", patience, || async {
        let now = applied(cluster).await;
        if now > last.get().0 {
            last.set((now, Instant::now()));
        }
        (last.get().1.elapsed() >= quiet).then_some(())
    })
    .await
    .expect("nothing is applied any more");
}

/// Waits until the operator has looked at `count` resources since its start.
pub(crate) async fn first_pass(operator: &Process, count: usize) {
    let address = address(operator).await;
    poll_within("the first pass", Duration::from_secs(300), || async {
        let page = http::get(address, "/metrics").await.ok()?.text();
        let series = page
            .lines()
            .filter(|line| line.starts_with("llmd_operator_reconcile_total{"));
        let looked = sum(series.filter(|line| line.contains("controller=\"llmdeployment\"")));
        (looked >= count as f64).then_some(())
    })
    .await
    .expect("every deployment was reconciled");
}

/// Where it serves its metrics, from the line that it logs.
async fn address(operator: &Process) -> SocketAddr {
    poll_within(
        "the operator's metrics address",
        Duration::from_secs(30),
        || async {
            operator.log().iter().find_map(|line| {
                let rest = line.split_once("metrics")?.1;
                let start = rest.find("127.0.0.1:")?;
                let port: String = rest[start + 10..]
                    .chars()
                    .take_while(char::is_ascii_digit)
                    .collect();
                format!("127.0.0.1:{port}").parse().ok()
            })
        },
    )
    .await
    .expect("an address")
}

fn sum<'a>(series: impl Iterator<Item = &'a str>) -> f64 {
    let values = series.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    values.sum()
}
