//! Upstream's flags and configuration start our picker unchanged.

use std::process::Command;

use llmd_e2e::echo::Echo;
use llmd_e2e::envoy::{self, Envoy};
use llmd_e2e::epp::{self, Epp};
use llmd_e2e::http;
use llmd_e2e::process::llmd_bin;

use super::{CHAT, chat, short_answer};

/// Flags as upstream's charts write them, Go style.
const CHART: [&str; 10] = [
    "--pool-name=pool",
    "--pool-namespace",
    "default",
    "--pool-group=inference.networking.k8s.io",
    "-v=2",
    "--zap-encoder=json",
    "--enable-pprof=false",
    "--tracing=false",
    "--metrics-staleness-threshold=2s",
    "--refresh-metrics-interval=50ms",
];

async fn serves(by_name: bool) {
    let upstream = Echo::start(short_answer()).await;
    let options = epp::Options {
        by_name,
        flags: CHART.map(str::to_owned).into(),
        ..epp::Options::default()
    };
    let epp = Epp::start(&[upstream.address], &options).await;
    let envoy = Envoy::start(epp.ext_proc, &envoy::Options::default()).await;
    let answer = http::post(envoy.address, CHAT, chat("hi"), &[]).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let metrics = http::get(epp.admin, "/metrics").await.unwrap().text();
    for family in [
        "llm_d_epp_request_total{",
        "inference_objective_request_total{",
        "llm_d_epp_ready_endpoints{",
    ] {
        assert!(metrics.contains(family), "{family}\n{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn upstreams_flags_start_the_role() {
    serves(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn upstreams_flags_start_the_binary_of_that_name() {
    serves(true).await;
}

#[test]
fn an_unknown_flag_is_refused_in_upstreams_words() {
    let output = Command::new(llmd_bin())
        .args(["epp", "--no-such-flag"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("unknown flag: --no-such-flag"), "{said}");
}
