//! A pool of a hundred: idle scraping, memory after many prompts, and how soon a start answers.

use std::net::SocketAddr;
use std::time::Duration;

use llmd_e2e::envoy::{self, Envoy};
use llmd_e2e::epp::{self, Epp};
use llmd_e2e::http;
use llmd_e2e::poll::DEADLINE;
use tokio::time::Instant;

use super::super::{KB, engines, load};

pub(super) const ENGINES: usize = 100;
pub(super) const STARTS: usize = 5;
const PROMPTS: usize = 10_000;
pub(super) const SETTLE: Duration = Duration::from_secs(2);
const IDLE_FOR: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(2);

/// What one picker needed.
pub(super) struct Hundred {
    /// Cores while only metrics are scraped.
    pub(super) cores: f64,
    /// Scrapes done in a second.
    pub(super) scrapes: f64,
    /// Resident memory in MiB before and after the prompts.
    pub(super) rss_before: f64,
    pub(super) rss_after: f64,
    /// Seconds from the start of the process to the first answer of an engine.
    pub(super) starts: Vec<f64>,
}

impl Hundred {
    pub(super) async fn measure(addresses: &[SocketAddr], picker: &epp::Options) -> Self {
        let mut epp = Epp::start(addresses, picker).await;
        let envoy = Envoy::start(epp.ext_proc, &envoy::Options::default()).await;
        super::pass(SETTLE).await;
        let before = (
            pages(addresses[0]).await,
            epp.process.cpu_seconds(),
            Instant::now(),
        );
        super::pass(IDLE_FOR).await;
        let wall = before.2.elapsed().as_secs_f64();
        let cores = (epp.process.cpu_seconds() - before.1) / wall;
        let scrapes = (pages(addresses[0]).await - before.0) / wall;

        let rss_before = resident_mib(epp.process.pid());
        let prompts = load::prompts(PROMPTS, 16 * KB);
        load::closed(envoy.address, &prompts, 16, PROMPTS).await;
        super::pass(SETTLE).await;
        let rss_after = resident_mib(epp.process.pid());

        let mut starts = Vec::new();
        for _ in 0..STARTS {
            let began = epp.relaunch();
            wait_for_answer(envoy.address).await;
            starts.push(began.elapsed().as_secs_f64());
        }
        Self {
            cores,
            scrapes,
            rss_before,
            rss_after,
            starts,
        }
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
        super::pass(PAUSE).await;
    }
}

/// `VmRSS` of a process (`proc(5)`).
fn resident_mib(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number
        .and_then(|kib| kib.parse::<f64>().ok())
        .expect("VmRSS in kB")
        / 1024.0
}
