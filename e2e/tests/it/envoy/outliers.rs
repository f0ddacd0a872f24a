//! Engines that stop or break while Envoy sends them requests.

use std::net::SocketAddr;
use std::time::Duration;

use llmd_e2e::envoy::{self, Envoy};
use llmd_e2e::epp::{self, Epp};
use llmd_e2e::poll::DEADLINE;
use llmd_e2e::{Process, http, poll_until_async};
use nix::sys::signal::Signal;

use super::{CHAT, engine};

/// Far longer than an engine needs, and far shorter than one that is stopped.
const PATIENCE: Duration = Duration::from_secs(10);

struct World {
    envoy: Envoy,
    epp: Epp,
    engines: Vec<(Process, SocketAddr)>,
}

async fn world() -> World {
    let engines = vec![engine().await, engine().await];
    let addresses: Vec<SocketAddr> = engines.iter().map(|(_, address)| *address).collect();
    let epp = Epp::start(&addresses, &epp::Options::default()).await;
    let envoy = Envoy::start(epp.ext_proc, &envoy::Options::default()).await;
    World { envoy, epp, engines }
}

impl World {
    /// Why the first engine is left out, as the picker tells.
    async fn ejection(&self) -> Option<String> {
        let lines = self.epp.debug_endpoints().await?;
        let target = self.engines[0].1.to_string();
        let line = lines.iter().find(|line| line["target"] == target.as_str())?;
        line["ejection"].as_str().map(str::to_owned)
    }

    async fn until(&self, what: &str, wanted: Option<&str>) {
        poll_until_async(what, DEADLINE, || async {
            (self.ejection().await.as_deref() == wanted).then_some(())
        })
        .await;
    }

    /// Different prompts spread over the engines that are in.
    async fn all_are_answered(&self) {
        for number in 0..30 {
            let body = format!(
                r#"{{"model":"tiny","max_tokens":1,"messages":[{{"role":"user","content":"{number}"}}]}}"#
            );
            let request = http::post(self.envoy.address, CHAT, body, &[]);
            let answer = tokio::time::timeout(PATIENCE, request)
                .await
                .expect("in time")
                .unwrap();
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_engine_gets_no_new_request_until_it_goes_on() {
    let world = world().await;
    world.all_are_answered().await;
    world.engines[0].0.signal(Signal::SIGSTOP);
    world
        .until("a stalled engine to be left out", Some("stalled"))
        .await;
    world.all_are_answered().await;
    world.engines[0].0.signal(Signal::SIGCONT);
    world.until("the engine to be back", None).await;
    world.all_are_answered().await;
    world.epp.wait_for_in_flight(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_engine_gets_no_new_request() {
    let world = world().await;
    world.all_are_answered().await;
    world.engines[0].0.signal(Signal::SIGKILL);
    world
        .until("a dead engine to be left out", Some("unreachable"))
        .await;
    world.all_are_answered().await;
    world.epp.wait_for_in_flight(0).await;
}
