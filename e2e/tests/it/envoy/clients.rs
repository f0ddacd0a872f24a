//! The official clients, through the rendered Envoy and the picker, to simulated engines.

use std::net::SocketAddr;

use llmd_e2e::epp::{self, Epp};
use llmd_e2e::{Process, tools};

use super::{engine_with, rendered};
use crate::journey;

/// Longest prompt, in bytes.
const LONGEST: usize = 1_000_008;

/// Room for it, and no time to think about it.
const FLAGS: [&str; 3] = [
    "--max-model-len=400000",
    "--kv-cache-size=40000",
    "--time-to-first-token=1ms",
];

async fn through_envoy(client: fn(&str) -> String) {
    let engines: [(Process, SocketAddr); 2] = [
        engine_with("tiny", &FLAGS).await,
        engine_with("tiny", &FLAGS).await,
    ];
    let options = epp::Options {
        secure: true,
        flags: vec!["--health-checking=true".to_owned(), "--tracing=false".to_owned()],
        ..epp::Options::default()
    };
    let epp = Epp::start(&engines.each_ref().map(|(_, address)| *address), &options).await;
    let (envoy, _) = rendered::start("{}", &epp).await;
    let url = format!("http://{}/v1", envoy.address);
    let said = tokio::task::spawn_blocking(move || client(&url)).await.unwrap();
    assert_eq!(said.trim(), "tiny");
    // Clients that left have left nothing behind.
    epp.wait_for_in_flight(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_client_works_through_envoy() {
    through_envoy(|url| tools::python(&journey::python(LONGEST), url)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_client_works_through_envoy() {
    through_envoy(|url| tools::node(&journey::node(LONGEST), url)).await;
}
