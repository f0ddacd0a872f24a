//! Requests that come while the pool is empty wait behind a real Envoy too.

use llmd_e2e::echo::Echo;
use llmd_e2e::envoy::{self, Envoy};
use llmd_e2e::epp::{self, Epp};
use llmd_e2e::http;
use llmd_e2e::poll::{DEADLINE, poll_until_async};

use super::{CHAT, chat, short_answer};

/// A picker without endpoints, and an Envoy in front of it.
async fn empty(ttl: &str) -> (Epp, Envoy) {
    let options = epp::Options {
        flags: vec![format!("--no-endpoint-request-ttl={ttl}")],
        ..epp::Options::default()
    };
    let epp = Epp::start(&[], &options).await;
    let envoy = Envoy::start(epp.ext_proc, &envoy::Options::default()).await;
    (epp, envoy)
}

pub(super) async fn waiting(epp: &Epp, requests: usize) {
    let labels = r#"fairness_id="default-flow",inference_pool="epp",model_name="m",priority="0",target_model_name="m""#;
    queued(epp, labels, requests).await;
}

async fn queued(epp: &Epp, labels: &str, requests: usize) {
    let line = format!("llm_d_epp_flow_control_queue_size{{{labels}}} {requests}");
    poll_until_async(&line, DEADLINE, || async {
        let page = http::get(epp.admin, "/metrics").await.ok()?.text();
        page.lines().any(|have| have == line).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn they_are_answered_when_the_first_endpoint_comes() {
    let (mut epp, envoy) = empty("10m").await;
    let address = envoy.address;
    let ask = || tokio::spawn(async move { http::post(address, CHAT, chat("hi"), &[]).await });
    let asked = [ask(), ask(), ask()];
    let leaves = ask();
    waiting(&epp, 4).await;
    // Envoy resets the stream of a client that leaves.
    leaves.abort();
    waiting(&epp, 3).await;

    let upstream = Echo::start(short_answer()).await;
    epp.set_endpoints(&[upstream.address]).await;
    for answer in asked {
        let answer = answer.await.unwrap().unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    waiting(&epp, 0).await;
    assert_eq!(upstream.count(), 3);
    epp.wait_for_in_flight(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_nobody_reads_waits_with_its_head() {
    let (mut epp, envoy) = empty("10m").await;
    let address = envoy.address;
    let body = "x".repeat(300_000);
    let sent = body.clone();
    let asked = tokio::spawn(async move { http::post(address, "/v1/audio/transcriptions", sent, &[]).await });
    let labels =
        r#"fairness_id="default-flow",inference_pool="epp",model_name="",priority="0",target_model_name="""#;
    queued(&epp, labels, 1).await;

    let upstream = Echo::start(short_answer()).await;
    epp.set_endpoints(&[upstream.address]).await;
    let answer = asked.await.unwrap().unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let recorded = upstream.take().expect("a request");
    assert!(
        recorded.body == body.as_bytes(),
        "{} bytes arrived",
        recorded.body.len()
    );
    epp.wait_for_in_flight(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_their_time_is_over_the_client_is_told_why() {
    let (epp, envoy) = empty("50ms").await;
    let answer = http::post(envoy.address, CHAT, chat("hi"), &[]).await.unwrap();
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(
        answer.header("x-llm-d-request-dropped-reason"),
        "rejected-no-endpoints"
    );
    assert!(
        answer.text().starts_with(
            "inference error: ServiceUnavailable - request timed out in queue and no endpoints are available: "
        ),
        "{}",
        answer.text()
    );
    waiting(&epp, 0).await;
}
