//! One picker, or the floor, behind an Envoy of its own.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use llmd_e2e::Process;
use llmd_e2e::envoy::{self, Envoy};
use llmd_e2e::process::cpu_seconds;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::super::{PACE, PACED_FOR, engines, load};

const IDLE_FOR: Duration = Duration::from_secs(3);
/// A picker that was stopped scrapes and connects again meanwhile.
const WARM_UP: Duration = Duration::from_millis(500);
/// Closed loop: length, and connections for each size of body.
const LOADED_FOR: Duration = Duration::from_secs(3);
const CONNECTIONS: [usize; 3] = [32, 8, 8];
const STREAMS: usize = 200;
/// The same in words.
pub(super) const LOAD: [&str; 4] = [
    "32 connections without a pause for 3 s",
    "8 connections without a pause for 3 s",
    "8 connections without a pause for 3 s",
    "200 streams of 100 chunks, one every 20 ms",
];

/// Bodies by size: 1, 220 and 450 KB.
pub(super) struct Work {
    pub(super) bodies: [Vec<Bytes>; 3],
}

pub(super) struct Subject {
    envoy: Envoy,
    /// `None`: Envoy asks nobody.
    pid: Option<u32>,
    /// Cores that it takes while no request comes.
    idle: f64,
    /// CPU seconds per request of each size, then per chunk; a value per round.
    pub(super) cpu: [Vec<f64>; 4],
}

impl Subject {
    /// An Envoy that asks this process; it is stopped until its turn comes.
    pub(super) async fn new(ext_proc: SocketAddr, process: &Process) -> Self {
        let envoy = Envoy::start(ext_proc, &envoy::Options::default()).await;
        process.signal(Signal::SIGSTOP);
        Self {
            envoy,
            pid: Some(process.pid()),
            idle: 0.0,
            cpu: Default::default(),
        }
    }

    /// An Envoy that asks nobody and takes the engines in turn.
    pub(super) async fn without(engines: &[SocketAddr]) -> Self {
        let options = envoy::Options {
            ext_proc: false,
            fixed_upstreams: engines.to_vec(),
            ..envoy::Options::default()
        };
        // No ext-proc server: the address is never used.
        let envoy = Envoy::start(engines[0], &options).await;
        Self {
            envoy,
            pid: None,
            idle: 0.0,
            cpu: Default::default(),
        }
    }

    /// Lets the process run for this work only.
    pub(super) async fn alone<T>(&mut self, work: impl AsyncFnOnce(&mut Self) -> T) -> T {
        self.signal(Signal::SIGCONT);
        super::pass(WARM_UP).await;
        let done = work(self).await;
        self.signal(Signal::SIGSTOP);
        done
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid {
            kill(Pid::from_raw(pid.cast_signed()), signal).expect("a running process");
        }
    }

    /// Measures what it takes while no request comes.
    pub(super) async fn learn_idle(&mut self) {
        let before = self.used();
        super::pass(IDLE_FOR).await;
        self.idle = (self.used() - before) / IDLE_FOR.as_secs_f64();
    }

    /// CPU per request of each size and per chunk, once each.
    pub(super) async fn round(&mut self, work: &Work) {
        let address = self.envoy.address;
        // Connections, code and branch predictors warm up outside the figures.
        load::closed(address, &work.bodies[0], 16, 1000).await;
        for (index, (bodies, connections)) in work.bodies.iter().zip(CONNECTIONS).enumerate() {
            let before = self.used();
            let (requests, took) = load::closed_for(address, bodies, connections, LOADED_FOR).await;
            self.note(index, before, requests, took);
        }
        let before = self.used();
        let began = std::time::Instant::now();
        load::streams(address, STREAMS).await;
        self.note(3, before, STREAMS * engines::CHUNKS, began.elapsed());
    }

    fn note(&mut self, index: usize, before: f64, units: usize, took: Duration) {
        let work = self.used() - before - self.idle * took.as_secs_f64();
        self.cpu[index].push(work / units as f64);
    }

    fn used(&self) -> f64 {
        self.pid.map_or(0.0, cpu_seconds)
    }

    /// P50 and P99 in milliseconds of small requests at the pace.
    pub(super) async fn latency(&self, work: &Work) -> [f64; 2] {
        let latencies = load::paced(self.envoy.address, &work.bodies[0], PACE, PACED_FOR).await;
        [0.50, 0.99].map(|share| at(&latencies, share))
    }

    /// P99 in milliseconds of requests of 220 KB at this rate.
    pub(super) async fn large_p99(&self, work: &Work, per_second: u32, length: Duration) -> f64 {
        let latencies = load::paced(self.envoy.address, &work.bodies[1], per_second, length).await;
        at(&latencies, 0.99)
    }
}

fn at(sorted: &[Duration], share: f64) -> f64 {
    sorted[(sorted.len() as f64 * share) as usize].as_secs_f64() * 1e3
}
