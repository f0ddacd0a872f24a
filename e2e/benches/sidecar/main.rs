//! What the routing sidecar costs, beside Envoy as a plain proxy, and what it adds to an answer's time.
//!
//! ```text
//!  load ──▶ llmd sidecar | Envoy | nothing ──▶ engine (answers at once)
//!  load ──▶ llmd sidecar ──▶ prefill engine, decode engine (both here: when did each end and begin?)
//! ```
//!
//! CPU time is that of the proxy's process. All subjects take turns, round by round; the median counts.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark: figures go to the terminal, and a failed step ends it"
)]

mod handover;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use llmd_e2e::Process;
use llmd_e2e::bench::{added, engines, figure, load, median, runtime, start_engines};
use llmd_e2e::envoy::{self, Envoy};
use llmd_e2e::poll::{DEADLINE, free_port, poll_until_async};
use llmd_e2e::process::{cpu_seconds, resident_mib};

const KB: usize = 1000;
const ROUNDS: usize = 5;
/// Rounds of the latency figures: shorter and more, because a neighbour's burst moves them more.
const LATENCY_ROUNDS: usize = 9;
/// Offered requests per second, and for how long.
const PACE: u32 = 500;
const PACED_FOR: Duration = Duration::from_secs(3);

/// Most CPU time per request, as a multiple of Envoy's.
const CPU_BUDGET: f64 = 0.8;
/// Most that the slowest hundredth may get slower, in milliseconds.
const P99_BUDGETS: [(usize, &str, f64); 2] = [(16 * KB, "16 KB", 0.5), (1000 * KB, "1 MB", 2.0)];
/// Most resident memory in MiB.
const MEMORY_BUDGET: f64 = 20.0;
/// Most time from the end of a prefill to the beginning of its decode, in milliseconds.
const HANDOVER_BUDGET: f64 = 0.5;

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some(engines::ROLE) => engines::run(),
        _ => runtime().block_on(measure()),
    }
}

/// A sidecar before the engine on this port.
pub(crate) async fn sidecar(engine: SocketAddr) -> (Process, SocketAddr) {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let process = Process::llmd([
        "sidecar".to_owned(),
        "--secure-serving=false".to_owned(),
        format!("--port={}", address.port()),
        format!("--model-server-port={}", engine.port()),
    ]);
    poll_until_async("a sidecar that serves", DEADLINE, || async {
        let answer = llmd_e2e::http::get(address, "/health").await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await;
    (process, address)
}

async fn measure() {
    let (_engines, addresses) = start_engines(1);
    let engine = addresses[0];
    let (ours, ours_at) = sidecar(engine).await;
    let options = envoy::Options {
        ext_proc: false,
        fixed_upstreams: addresses.clone(),
        ..envoy::Options::default()
    };
    let envoy = Envoy::start(engine, &options).await;
    cpu(&envoy, &ours, ours_at).await;
    for (size, name, budget) in P99_BUDGETS {
        latency(engine, ours_at, &load::prompts(32, size), name, budget).await;
    }
    let resident = resident_mib(ours.pid());
    let note = "VmRSS after the requests of the figures above";
    figure(
        "sidecar: resident memory",
        resident,
        "MiB",
        Some(MEMORY_BUDGET),
        note,
    );
    drop((ours, envoy));
    handover().await;
}

async fn cpu(envoy: &Envoy, ours: &Process, ours_at: SocketAddr) {
    let bodies = load::prompts(512, KB);
    let subjects = [(ours.pid(), ours_at), (envoy.process.pid(), envoy.address)];
    let mut costs = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for ((pid, address), costs) in subjects.into_iter().zip(&mut costs) {
            // Connections, code and branch predictors warm up outside the figures.
            load::closed(address, &bodies, 16, 1000).await;
            let before = cpu_seconds(pid);
            let count = 20_000;
            load::closed(address, &bodies, 32, count).await;
            costs.push((cpu_seconds(pid) - before) / f64::from(count as u32) * 1e6);
        }
    }
    let [ours, envoys] = costs.map(|costs| median(&costs));
    figure(
        "sidecar: CPU per 1 KB request, times Envoy's",
        ours / envoys,
        "×",
        Some(CPU_BUDGET),
        &format!("ours {ours:.1} µs, Envoy as a plain proxy {envoys:.1} µs; median of {ROUNDS}"),
    );
}

async fn latency(engine: SocketAddr, ours: SocketAddr, bodies: &[Bytes], name: &str, budget: f64) {
    let mut slow = [Vec::new(), Vec::new()];
    for _ in 0..LATENCY_ROUNDS {
        for (address, slow) in [engine, ours].into_iter().zip(&mut slow) {
            let latencies = load::paced(address, bodies, PACE, PACED_FOR).await;
            slow.push(latencies[latencies.len() * 99 / 100].as_secs_f64() * 1e3);
        }
    }
    let [direct, through] = &slow;
    figure(
        &format!("sidecar: added P99, {name}"),
        added(through, direct).max(0.0),
        "ms",
        Some(budget),
        &format!(
            "{:.3} ms directly, {:.3} ms through it, {PACE} requests/s; median of {LATENCY_ROUNDS}",
            median(direct),
            median(through)
        ),
    );
}

async fn handover() {
    let pauses = handover::measure().await;
    let at = |share: usize| pauses[pauses.len() * share / 100].as_secs_f64() * 1e3;
    figure(
        "sidecar: prefill end to decode start, P99",
        at(99),
        "ms",
        Some(HANDOVER_BUDGET),
        &format!("P50 {:.3} ms over {} prompts of 16 KB", at(50), pauses.len()),
    );
}
