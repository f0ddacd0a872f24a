//! What the rendered proxy does by itself: the next engine for a dead one, and any engine for a dead picker.

use std::net::SocketAddr;

use llmd_e2e::echo::Echo;
use llmd_e2e::envoy::Envoy;
use llmd_e2e::epp::{self, Epp};
use llmd_e2e::poll::DEADLINE;
use llmd_e2e::{Process, http, poll_until_async};
use nix::sys::signal::Signal;

use super::outage::{Load, kill};
use super::{CHAT, chat, engine_of, rendered, short_answer, waiting};

/// As the renderer starts it.
fn as_rendered() -> epp::Options {
    epp::Options {
        secure: true,
        flags: vec!["--health-checking=true".to_owned()],
        ..epp::Options::default()
    }
}

/// How many engines Envoy knows.
async fn told(envoy: &Envoy, engines: u64) {
    poll_until_async("Envoy to know the engines", DEADLINE, || async {
        (envoy.stat("cluster.engines.membership_total").await == engines).then_some(())
    })
    .await;
}

/// The window between an engine's death and the picker's noticing it is Envoy's to bridge: requests that got no answer
/// yet go to another engine.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_engine_costs_no_request() {
    let mut engines: Vec<(Process, SocketAddr)> =
        vec![engine_of("m").await, engine_of("m").await, engine_of("m").await];
    let addresses: Vec<SocketAddr> = engines.iter().map(|(_, address)| *address).collect();
    let epp = Epp::start(&addresses, &as_rendered()).await;
    let (envoy, _) = rendered::start("{}", &epp).await;
    told(&envoy, 3).await;
    let load = Load::start(&envoy);
    for (process, _) in engines.iter_mut().take(2) {
        load.wait_for_more("answers", |seen| &seen.good).await;
        process.signal(Signal::SIGKILL);
        process.wait(DEADLINE);
    }
    load.wait_for_more("answers of the last one", |seen| &seen.good)
        .await;
    load.assert_good();
    load.end().await;
    epp.wait_for_in_flight(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_picker_requests_go_to_any_engine_and_nowhere_else() {
    let (first, second, other) = (
        Echo::start(short_answer()).await,
        Echo::start(short_answer()).await,
        Echo::start(short_answer()).await,
    );
    let mut epp = Epp::start(&[first.address, second.address], &as_rendered()).await;
    let (envoy, _) = rendered::start("{proxy: {failOpen: true}}", &epp).await;
    told(&envoy, 2).await;
    let forged = other.address.to_string();
    let ask = || async {
        let headers = [("x-gateway-destination-endpoint", forged.as_str())];
        let answer = http::post(envoy.address, CHAT, chat("hi"), &headers).await;
        answer.expect("an answer").status
    };
    assert_eq!(ask().await, 200);

    kill(&mut epp);
    // One request may find out that nobody is there, where no check did.
    poll_until_async("answers without a picker", DEADLINE, || async {
        (ask().await == 200).then_some(())
    })
    .await;
    let before = (first.count(), second.count());
    for _ in 0..40 {
        assert_eq!(ask().await, 200);
    }
    assert!(
        first.count() > before.0 && second.count() > before.1,
        "one engine got it all"
    );
    assert_eq!(other.count(), 0, "a client chose the target");

    epp.restart().await;
    poll_until_async("the picker to be asked again", DEADLINE, || async {
        ask().await;
        let page = http::get(epp.admin, "/metrics").await.ok()?.text();
        page.lines()
            .any(|line| line.starts_with("llm_d_epp_request_total{"))
            .then_some(())
    })
    .await;
    // The endpoints are told by the new one: a third is known without a restart of Envoy.
    let third = Echo::start(short_answer()).await;
    epp.set_endpoints(&[first.address, second.address, third.address])
        .await;
    told(&envoy, 3).await;
    epp.wait_for_in_flight(0).await;
}

/// Envoy has to know an endpoint before the requests that waited for it.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_waited_for_the_first_endpoint_find_it() {
    let mut options = as_rendered();
    options.flags.push("--no-endpoint-request-ttl=10m".to_owned());
    let mut epp = Epp::start(&[], &options).await;
    let (envoy, _) = rendered::start("{}", &epp).await;
    let address = envoy.address;
    let asked: Vec<_> = (0..20)
        .map(|number| {
            tokio::spawn(async move { http::post(address, CHAT, chat(&format!("{number}")), &[]).await })
        })
        .collect();
    waiting::waiting(&epp, asked.len()).await;
    let engine = Echo::start(short_answer()).await;
    epp.set_endpoints(&[engine.address]).await;
    for answer in asked {
        let answer = answer.await.unwrap().unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    epp.wait_for_in_flight(0).await;
}
