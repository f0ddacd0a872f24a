//! Bodies that nobody reads: routed by their head, and not even sent to the picker where Envoy is told so.

use llmd_e2e::echo::{Echo, Reply};
use llmd_e2e::envoy::{self, Envoy};
use llmd_e2e::epp::{self, Epp};
use llmd_e2e::poll::DEADLINE;
use llmd_e2e::{http, poll_until_async};

use super::{CHAT, chat};

/// A path that no parser claims.
const PATH: &str = "/v1/audio/transcriptions";

struct World {
    upstream: Echo,
    epp: Epp,
    envoy: Envoy,
}

async fn world(request_bodies: bool) -> World {
    let upstream = Echo::start(Reply::Body).await;
    let epp = Epp::start(&[upstream.address], &epp::Options::default()).await;
    let options = envoy::Options {
        request_bodies,
        ..envoy::Options::default()
    };
    let envoy = Envoy::start(epp.ext_proc, &options).await;
    World { upstream, epp, envoy }
}

impl World {
    /// Sends a body of this size there and back; returns how much of it the picker got.
    async fn sent(&self, size: usize) -> u64 {
        let body = "x".repeat(size);
        let answer = http::post(self.envoy.address, PATH, body.clone(), &[])
            .await
            .unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        let recorded = self.upstream.take().expect("a request");
        assert!(
            recorded.body == body.as_bytes(),
            "{} bytes arrived",
            recorded.body.len()
        );
        assert!(
            answer.body == body.as_bytes(),
            "{} bytes came back",
            answer.body.len()
        );
        self.epp.wait_for_in_flight(0).await;
        let page = http::get(self.epp.admin, "/metrics").await.unwrap().text();
        let line = page
            .lines()
            .find_map(|line| line.strip_prefix("llm_d_epp_extproc_request_body_bytes_total "));
        line.expect("a counter").trim().parse().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_bodies_the_picker_gets_none_and_says_where_it_needs_one() {
    let world = world(false).await;
    for size in [1, 5_000_000] {
        assert_eq!(world.sent(size).await, 0, "{size}");
    }
    let answer = http::post(world.envoy.address, CHAT, chat("hello"), &[])
        .await
        .unwrap();
    assert_eq!(answer.status, 500);
    poll_until_async("the log to say why", DEADLINE, || async {
        let log = world.epp.process.log();
        log.iter()
            .any(|line| line.contains("request_body_mode is NONE"))
            .then_some(())
    })
    .await;
}

/// Upstream's configuration of Envoy.
#[tokio::test(flavor = "multi_thread")]
async fn an_envoy_that_sends_bodies_gets_them_back() {
    let world = world(true).await;
    assert_eq!(world.sent(1_000_000).await, 1_000_000);
    assert_eq!(world.sent(1).await, 1_000_001);
}
