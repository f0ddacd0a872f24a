//! A second picker listens behind the one in service: it answers nothing and compares.

use llmd_e2e::echo::{Echo, Reply};
use llmd_e2e::envoy::{self, Envoy};
use llmd_e2e::epp::{self, Epp};
use llmd_e2e::poll::DEADLINE;
use llmd_e2e::{http, poll_until_async};
use nix::sys::signal::Signal;

use super::{CHAT, chat, short_answer};

/// Sum of decisions with one of these results.
async fn decisions(shadow: &Epp, results: &[&str]) -> u64 {
    let page = http::get(shadow.admin, "/metrics").await.expect("a page").text();
    let counted = |result: &&str| {
        let line = format!("llm_d_epp_shadow_decisions_total{{result=\"{result}\"}} ");
        let value = page.lines().find_map(|found| found.strip_prefix(&line))?;
        value.parse::<u64>().ok()
    };
    results.iter().filter_map(counted).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_compares_each_request_and_clients_do_not_notice_it() {
    let event = "data: {\"model\":\"m\",\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n".to_owned();
    let mut upstreams = Vec::new();
    for reply in [short_answer(), Reply::Events(vec![event; 20])] {
        upstreams.push(Echo::start(reply).await);
    }
    let addresses: Vec<_> = upstreams.iter().map(|upstream| upstream.address).collect();
    let epp = Epp::start(&addresses, &epp::Options::default()).await;
    let listening = epp::Options {
        flags: vec!["--shadow".into()],
        ..epp::Options::default()
    };
    let mut shadow = Epp::start(&addresses, &listening).await;
    let options = envoy::Options {
        shadow: Some(shadow.ext_proc),
        ..envoy::Options::default()
    };
    let envoy = Envoy::start(epp.ext_proc, &options).await;

    let ask = async |text: &str| {
        let answer = http::post(envoy.address, CHAT, chat(text), &[])
            .await
            .expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    for number in 0..30_u64 {
        ask(&format!("{number} is the subject of these words").repeat(40)).await;
        // Bodies and answers of all sizes, one after the other, so that both see the same load.
        poll_until_async("a comparison", DEADLINE, || async {
            let seen = decisions(&shadow, &["agreed", "differed"]).await;
            (seen == number + 1).then_some(())
        })
        .await;
    }
    assert_eq!(
        decisions(&shadow, &["rejected", "unknown_endpoint", "unserved"]).await,
        0
    );
    assert!(
        upstreams.iter().all(|upstream| upstream.count() > 0),
        "both engines were asked"
    );
    shadow.wait_for_in_flight(0).await;

    shadow.process.signal(Signal::SIGKILL);
    shadow.process.wait(DEADLINE);
    for number in 0..10 {
        ask(&format!("{number} without a shadow")).await;
    }
    epp.wait_for_in_flight(0).await;
}
