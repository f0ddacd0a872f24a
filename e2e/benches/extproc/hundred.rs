//! A pool of a hundred: idle scraping, memory after many prompts, and how soon a start answers.

use std::net::SocketAddr;
use std::time::Duration;

use llmd_e2e::bench::{engines, load};
use llmd_e2e::envoy::{self, Envoy};
use llmd_e2e::epp::{self, Epp};
use llmd_e2e::http;
use llmd_e2e::poll::DEADLINE;
use llmd_e2e::process::resident_mib;
use tokio::time::Instant;

use super::KB;

pub(crate) const ENGINES: usize = 100;
pub(crate) const STARTS: usize = 5;
const PROMPTS: usize = 10_000;
pub(crate) const SETTLE: Duration = Duration::from_secs(2);
const IDLE_FOR: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(2);

/// One picker with its endpoints and its Envoy.
pub(crate) struct Hundred {
    epp: Epp,
    envoy: Envoy,
    engine: SocketAddr,
}

impl Hundred {
    pub(crate) async fn start(addresses: &[SocketAddr], picker: &epp::Options) -> Self {
        let epp = Epp::start(addresses, picker).await;
        let envoy = Envoy::start(epp.ext_proc, &envoy::Options::default()).await;
        tokio::time::sleep(SETTLE).await;
        Self {
            epp,
            envoy,
            engine: addresses[0],
        }
    }

    /// Cores while only metrics are scraped, and scrapes done in a second.
    pub(crate) async fn idle(&self) -> [f64; 2] {
        let (pages_before, cpu_before) = (pages(self.engine).await, self.epp.process.cpu_seconds());
        let began = Instant::now();
        tokio::time::sleep(IDLE_FOR).await;
        let wall = began.elapsed().as_secs_f64();
        let cpu = self.epp.process.cpu_seconds() - cpu_before;
        [cpu / wall, (pages(self.engine).await - pages_before) / wall]
    }

    /// Resident memory in MiB before and after so many different prompts.
    pub(crate) async fn memory(&self) -> [f64; 2] {
        let before = resident_mib(self.epp.process.pid());
        let prompts = load::prompts(PROMPTS, 16 * KB);
        load::closed(self.envoy.address, &prompts, 16, PROMPTS).await;
        tokio::time::sleep(SETTLE).await;
        [before, resident_mib(self.epp.process.pid())]
    }

    /// Seconds from a start of the process to the first answer of an engine.
    pub(crate) async fn starts(mut self) -> Vec<f64> {
        let mut starts = Vec::new();
        for _ in 0..STARTS {
            let began = self.epp.relaunch();
            wait_for_answer(self.envoy.address).await;
            starts.push(began.elapsed().as_secs_f64());
        }
        starts
    }
}

/// Metrics pages that all engines gave so far.
async fn pages(engine: SocketAddr) -> f64 {
    let answer = http::get(engine, engines::SCRAPES)
        .await
        .expect("a running engine");
    answer.text().parse().expect("a number")
}

/// Asks without a pause that counts until an engine answered.
async fn wait_for_answer(envoy: SocketAddr) {
    let end = Instant::now() + DEADLINE;
    let body = &load::prompts(1, KB)[0];
    loop {
        let answer = http::post(envoy, load::CHAT, body.clone(), &[]).await;
        if answer.is_ok_and(|answer| answer.status == 200) {
            return;
        }
        assert!(Instant::now() < end, "no answer within {DEADLINE:?}");
        tokio::time::sleep(PAUSE).await;
    }
}
