//! Engines without work are scraped less often, until somebody is sent there.

use super::{MetricsServer, source, start_adaptive};
use crate::metrics_server::{Manner, vllm_page};
use crate::wait::until_true;

#[tokio::test]
async fn an_engine_without_work_is_scraped_less_often_until_it_gets_a_request() {
    let idle = MetricsServer::start(Manner::Proper, vllm_page(0, 0, 0.5)).await;
    let busy = MetricsServer::start(Manner::Proper, vllm_page(0, 1, 0.5)).await;
    let rig = start_adaptive(vec![source("{}")]);
    rig.layer
        .set_endpoints(vec![idle.spec("idle"), busy.spec("busy")]);
    // How often each was scraped until the busy one was so many times more.
    let polls = async |scrapes: usize| {
        let before = (idle.requests(), busy.requests());
        until_true("more scrapes", || busy.requests() >= before.1 + scrapes).await;
        (idle.requests() - before.0, busy.requests() - before.1)
    };
    polls(25).await;
    let (rare, often) = polls(30).await;
    assert!(rare > 0 && rare * 2 < often, "{rare} scrapes to {often}");

    let snapshot = rig.layer.snapshot();
    let held = snapshot.endpoints[rig.index("idle")].slot().reserve(1);
    polls(3).await;
    let (asked, often) = polls(30).await;
    assert!(asked * 4 > often * 3, "{asked} scrapes to {often}");
    drop(held);
}
