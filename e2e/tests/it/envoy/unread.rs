//! Bodies that nobody reads: routed by their head, and not even sent to the picker where Envoy is told so.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
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

const EVENT: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";

async fn without_response_bodies(reply: Reply) -> World {
    let upstream = Echo::start(reply).await;
    let epp = Epp::start(&[upstream.address], &epp::Options::default()).await;
    let options = envoy::Options {
        response_bodies: false,
        ..envoy::Options::default()
    };
    let envoy = Envoy::start(epp.ext_proc, &options).await;
    World { upstream, epp, envoy }
}

fn long_chat() -> Request<Full<Bytes>> {
    let prompt = chat(&"a prompt of several blocks ".repeat(100));
    http::json_request(CHAT, prompt, &[]).unwrap()
}

/// The last value of the first line that begins with `name`.
async fn metric(epp: &Epp, name: &str) -> Option<f64> {
    let page = http::get(epp.admin, "/metrics").await.ok()?.text();
    let line = page.lines().find(|line| line.starts_with(name))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_response_bodies_load_counts_to_the_end_and_prefixes_from_the_head_on() {
    let world = without_response_bodies(Reply::EventsWithoutEnd(vec![EVENT.to_owned()])).await;
    let mut open = Vec::new();
    for count in 1..=3 {
        let mut answer = http::open(world.envoy.address, long_chat()).await.unwrap();
        let chunk = answer
            .body_mut()
            .frame()
            .await
            .expect("a frame")
            .expect("a chunk");
        assert_eq!(chunk.into_data().expect("data"), EVENT);
        assert_eq!(world.epp.in_flight().await, count, "the answers are open");
        open.push(answer);
    }
    let hits = metric(&world.epp, "llm_d_epp_prefix_indexer_hit_ratio_sum").await;
    let hits = hits.expect("the prefix index was asked");
    assert!(
        hits > 1.0,
        "the second and the third know the prompt of the first: {hits}"
    );
    drop(open);
    world.epp.wait_for_in_flight(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_response_bodies_answers_are_complete_and_their_size_is_unknown() {
    let world = without_response_bodies(Reply::Events(vec![EVENT.to_owned()])).await;
    let answer = http::send(world.envoy.address, long_chat()).await.unwrap();
    assert_eq!(answer.text(), EVENT);
    poll_until_async("the end of the answer", DEADLINE, || async {
        let ended = metric(&world.epp, "llm_d_epp_request_duration_seconds_count").await;
        (ended == Some(1.0)).then_some(())
    })
    .await;
    assert_eq!(world.epp.in_flight().await, 0);
    for unknown in ["llm_d_epp_response_size_bytes", "llm_d_epp_request_ttft_seconds"] {
        assert_eq!(metric(&world.epp, unknown).await, None, "{unknown}");
    }
}
