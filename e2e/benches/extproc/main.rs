//! What our picker costs behind Envoy, against the floor of the same stack.
//!
//! The floor is a server on tonic and prost over `Bytes` that answers every stream with the next one of a
//! fixed list of endpoints and echoes the bodies. Both run behind an Envoy of their own, in alternating
//! rounds, with the same eight engines; the median of the rounds counts. All subjects spread over all
//! engines: with one endpoint only, Envoy would keep one warm pool of connections for the floor and eight
//! cooler ones for us, and the difference would be Envoy's. CPU time is that of the server's process.
//!
//! ```text
//!  load ──▶ Envoy ──▶ floor | llmd epp     (ext-proc; none for the latency that is subtracted)
//!             └────▶ engines               (answers at once; /metrics of 32 KB)
//! ```
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark: figures go to the terminal, and a failed step ends it"
)]

mod beside;
mod floor;
mod hundred;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hundred::Hundred;
use llmd_e2e::Process;
use llmd_e2e::bench::{added, engines, figure, load, median, role, runtime, start_engines};
use llmd_e2e::envoy::{self, Envoy};
use llmd_e2e::epp::{self, Epp};
use llmd_e2e::process::cpu_seconds;

const ROUNDS: usize = 5;
/// Rounds of the latency figures: shorter and more, because a neighbour's burst moves them more.
const LATENCY_ROUNDS: usize = 11;
/// Added latency below this, in milliseconds, is not told from none.
const RESOLUTION: f64 = 0.02;
const ENGINES: usize = 8;
const KB: usize = 1000;

/// Most CPU time, as a multiple of the floor's.
const CPU_BUDGET: f64 = 1.3;
/// A path that no parser claims.
const UNREAD: &str = "/v1/audio/transcriptions";
/// Most CPU time for such a request, in milliseconds.
const UNREAD_BUDGET: f64 = 0.1;
/// Most added latency, as a multiple of the floor's.
const LATENCY_BUDGET: f64 = 1.5;

/// Most growth of resident memory in MiB, and most milliseconds to the first answer, with a hundred endpoints.
const MEMORY_BUDGET: f64 = 40.0;
const START_BUDGET: f64 = 300.0;

/// How long a server is watched without requests.
const REST: Duration = Duration::from_secs(3);
/// Offered requests per second for the latency figures, and for how long.
const PACE: u32 = 500;
const PACED_FOR: Duration = Duration::from_secs(5);

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some(engines::ROLE) => engines::run(),
        Some(floor::ROLE) => floor::run(),
        _ => match std::env::var_os(beside::PICKER) {
            Some(picker) => runtime().block_on(beside::measure(picker.into())),
            None => runtime().block_on(measure()),
        },
    }
}

/// A server under measurement and the Envoy before it.
struct Subject {
    envoy: Envoy,
    pid: u32,
    /// What the server needs without any request, in cores: scraping.
    idle: f64,
    small: Vec<f64>,
    large: Vec<f64>,
    huge: Vec<f64>,
    chunk: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
}

impl Subject {
    fn new(envoy: Envoy, pid: u32) -> Self {
        Self {
            envoy,
            pid,
            idle: 0.0,
            small: Vec::new(),
            large: Vec::new(),
            huge: Vec::new(),
            chunk: Vec::new(),
            p50: Vec::new(),
            p99: Vec::new(),
        }
    }

    /// Measures what the server needs without any request.
    async fn rest(mut self) -> Self {
        let before = cpu_seconds(self.pid);
        tokio::time::sleep(REST).await;
        self.idle = (cpu_seconds(self.pid) - before) / REST.as_secs_f64();
        self
    }

    /// CPU seconds of the server while `work` runs, per unit of it, without what it needs anyway.
    async fn cpu_per(&self, units: usize, work: impl Future<Output = ()>) -> f64 {
        let (before, began) = (cpu_seconds(self.pid), Instant::now());
        work.await;
        let anyway = self.idle * began.elapsed().as_secs_f64();
        (cpu_seconds(self.pid) - before - anyway) / units as f64
    }

    async fn round(&mut self, work: &Work) {
        let address = self.envoy.address;
        // Connections, code and branch predictors warm up outside the figures.
        load::closed(address, &work.small, 16, 1000).await;
        let (count, connections) = (20_000, 32);
        let small = self
            .cpu_per(count, load::closed(address, &work.small, connections, count))
            .await;
        self.small.push(small * 1e6);
        let (count, connections) = (2_000, 8);
        let large = self
            .cpu_per(count, load::closed(address, &work.large, connections, count))
            .await;
        self.large.push(large * 1e6);
        let (count, connections) = (1_000, 8);
        let huge = self
            .cpu_per(count, load::closed(address, &work.huge, connections, count))
            .await;
        self.huge.push(huge * 1e6);
        let streams = 200;
        let chunks = streams * engines::CHUNKS;
        let chunk = self.cpu_per(chunks, load::streams(address, streams)).await;
        self.chunk.push(chunk * 1e5);
    }

    async fn latency(&mut self, work: &Work) {
        let latencies = load::paced(self.envoy.address, &work.small, PACE, PACED_FOR).await;
        let at = |share: f64| latencies[(latencies.len() as f64 * share) as usize].as_secs_f64() * 1e3;
        self.p50.push(at(0.50));
        self.p99.push(at(0.99));
    }
}

struct Work {
    small: Vec<Bytes>,
    large: Vec<Bytes>,
    huge: Vec<Bytes>,
}

async fn measure() {
    let (_engines, addresses) = start_engines(ENGINES);
    let (floor, floor_address) = floor(&addresses);
    let options = epp::Options {
        flags: vec![
            "--tracing=false".to_owned(),
            "--adaptive-scraping=false".to_owned(),
        ],
        ..epp::Options::default()
    };
    let epp = Epp::start(&addresses, &options).await;

    let with = envoy::Options::default();
    let without = envoy::Options {
        ext_proc: false,
        fixed_upstreams: addresses.clone(),
        ..envoy::Options::default()
    };
    let mut none = Subject::new(Envoy::start(floor_address, &without).await, floor.pid());
    let mut floor = Subject::new(Envoy::start(floor_address, &with).await, floor.pid());
    let ours = Subject::new(Envoy::start(epp.ext_proc, &with).await, epp.process.pid());
    let mut ours = ours.rest().await;
    let work = Work {
        small: load::prompts(512, KB),
        large: load::prompts(64, 220 * KB),
        huge: load::prompts(32, 450 * KB),
    };
    for _ in 0..ROUNDS {
        floor.round(&work).await;
        ours.round(&work).await;
    }
    for _ in 0..LATENCY_ROUNDS {
        for subject in [&mut none, &mut floor, &mut ours] {
            subject.latency(&work).await;
        }
    }
    epp.wait_for_in_flight(0).await;
    report(&none, &floor, &ours);
    drop((floor, ours));
    unread(&epp).await;
    drop(epp);
    large_pool(&options).await;
}

/// Requests that are routed by their head: what they cost does not depend on their bodies, which are not sent.
async fn unread(epp: &Epp) {
    let options = envoy::Options {
        request_bodies: false,
        ..envoy::Options::default()
    };
    let envoy = Envoy::start(epp.ext_proc, &options).await;
    let subject = Subject::new(envoy, epp.process.pid()).rest().await;
    let (count, connections, address) = (1_000, 8, subject.envoy.address);
    let mut costs = Vec::new();
    for size in [KB, 1000 * KB] {
        let bodies = load::prompts(4, size);
        let load = load::closed_at(address, UNREAD, &bodies, connections, count);
        costs.push(subject.cpu_per(count, load).await * 1e3);
    }
    figure(
        "ext-proc: CPU per request whose body nobody reads, 1 MB",
        costs[1],
        "ms",
        Some(UNREAD_BUDGET),
        &format!("{:.3} ms with a body of 1 KB", costs[0]),
    );
}

/// What a pool of a hundred needs, whatever the floor.
async fn large_pool(picker: &epp::Options) {
    let (_engines, addresses) = start_engines(hundred::ENGINES);
    let hundred = Hundred::start(&addresses, picker).await;
    let [before, after] = hundred.memory().await;
    figure(
        "ext-proc: memory that 10,000 distinct prompts of 16 KB take, 100 endpoints",
        after - before,
        "MiB",
        Some(MEMORY_BUDGET),
        &format!("VmRSS {before:.1} MiB before, {after:.1} MiB after"),
    );
    let starts = hundred.starts().await;
    figure(
        "ext-proc: start to the first good answer, 100 endpoints",
        median(&starts) * 1e3,
        "ms",
        Some(START_BUDGET),
        &format!("through an Envoy that runs; median of {}", hundred::STARTS),
    );
}

fn report(none: &Subject, floor: &Subject, ours: &Subject) {
    let cpu = [
        ("1 KB request", "µs", &floor.small, &ours.small, Some(CPU_BUDGET)),
        (
            "220 KB request",
            "µs",
            &floor.large,
            &ours.large,
            Some(CPU_BUDGET),
        ),
        ("450 KB request", "µs", &floor.huge, &ours.huge, Some(CPU_BUDGET)),
        (
            "100k paced response chunks",
            "s",
            &floor.chunk,
            &ours.chunk,
            Some(CPU_BUDGET),
        ),
    ];
    for (name, unit, floor, ours, budget) in cpu {
        let (floor, ours) = (median(floor), median(ours));
        let note = format!(
            "floor {floor:.3} {unit}, ours {ours:.3} {unit} of CPU without scraping; median of {ROUNDS}"
        );
        figure(
            &format!("ext-proc: CPU per {name}, times the floor's"),
            ours / floor,
            "×",
            budget,
            &note,
        );
    }
    for (name, none, floor, ours) in [
        ("P50", &none.p50, &floor.p50, &ours.p50),
        ("P99", &none.p99, &floor.p99, &ours.p99),
    ] {
        let [floor, ours] = [floor, ours].map(|with| added(with, none).max(RESOLUTION));
        let note = format!(
            "floor {floor:.3} ms, ours {ours:.3} ms over {:.3} ms without ext-proc, {PACE} requests/s; median of {LATENCY_ROUNDS}",
            median(none)
        );
        let name = format!("ext-proc: added {name}, times the floor's");
        figure(&name, ours / floor, "×", Some(LATENCY_BUDGET), &note);
    }
}

/// The floor in a process of its own, and where it is.
fn floor(engines: &[SocketAddr]) -> (Process, SocketAddr) {
    let names: Vec<String> = engines.iter().map(SocketAddr::to_string).collect();
    let mut floor = role(&format!("{} {}", floor::ROLE, names.join(",")));
    let address = floor.wait_for_line("the floor's address", |line| line.parse().ok());
    (floor, address)
}
