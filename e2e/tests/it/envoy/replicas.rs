//! Two pickers side by side, both active: one is killed, the other one takes over.

use std::sync::atomic::Ordering;
use std::time::Instant;

use llmd_e2e::echo::Echo;
use llmd_e2e::envoy::{self, Envoy};
use llmd_e2e::epp::{self, Epp};
use llmd_e2e::http;
use llmd_e2e::poll::DEADLINE;

use super::outage::{Load, kill};
use super::short_answer;

/// Requests that this picker has routed.
async fn routed(epp: &Epp) -> f64 {
    let page = http::get(epp.admin, "/metrics").await.expect("a page").text();
    let lines = page
        .lines()
        .filter(|line| line.starts_with("llm_d_epp_request_total{"));
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// Waits until many requests in a row are answered well; returns how many were not before that.
async fn recovered(load: &Load) -> u64 {
    let before = load.seen.bad.load(Ordering::Relaxed);
    let end = Instant::now() + DEADLINE;
    loop {
        let bad = load.seen.bad.load(Ordering::Relaxed);
        for _ in 0..50 {
            load.wait_for_more("good answers", |seen| &seen.good).await;
        }
        if load.seen.bad.load(Ordering::Relaxed) == bad {
            return bad - before;
        }
        assert!(Instant::now() < end, "requests go on failing");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_is_killed_and_comes_back() {
    let upstreams = [
        Echo::start(short_answer()).await,
        Echo::start(short_answer()).await,
    ];
    let addresses = upstreams.each_ref().map(|upstream| upstream.address);
    let mut first = Epp::start(&addresses, &epp::Options::default()).await;
    let second = Epp::start(&addresses, &epp::Options::default()).await;
    let options = envoy::Options {
        replicas: vec![second.ext_proc],
        ..envoy::Options::default()
    };
    let envoy = Envoy::start(first.ext_proc, &options).await;
    let load = Load::start(&envoy);
    load.wait_for_more("answers", |seen| &seen.good).await;
    load.wait_for_more("answers", |seen| &seen.good).await;
    assert!(
        routed(&first).await > 0.0 && routed(&second).await > 0.0,
        "both take their turn"
    );

    kill(&mut first);
    let (killed, alone) = (Instant::now(), routed(&second).await);
    let failed = recovered(&load).await;
    println!(
        "{failed} requests failed until the other picker had all, {:?} after the kill",
        killed.elapsed()
    );
    assert!(routed(&second).await > alone);

    first.restart().await;
    let end = Instant::now() + DEADLINE;
    while routed(&first).await < 1.0 {
        assert!(Instant::now() < end, "it gets no request any more");
        load.wait_for_more("answers", |seen| &seen.good).await;
    }
    load.end().await;
    first.wait_for_in_flight(0).await;
    second.wait_for_in_flight(0).await;
}
