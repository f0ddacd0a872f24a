//! What the benchmarks of requests have in common: clients, engines that cost nothing, figures.

pub mod engines;
pub mod load;

use std::net::SocketAddr;
use std::process::Command;

use serde_json::json;

use crate::Process;

/// A runtime with all cores.
///
/// # Panics
/// When the system gives no threads.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// One line that `cargo xtask bench` reads.
#[allow(clippy::print_stdout, reason = "figures go to the terminal")]
pub fn figure(name: &str, value: f64, unit: &str, budget: Option<f64>, note: &str) {
    println!(
        "figure: {}",
        json!({"name": name, "value": value, "unit": unit, "budget": budget, "note": note})
    );
}

/// The middle one.
///
/// # Panics
/// Without values.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// Median of what each round adds to the round without the subject beside it.
pub fn added(with: &[f64], without: &[f64]) -> f64 {
    let pairs = with.iter().zip(without);
    median(&pairs.map(|(with, without)| with - without).collect::<Vec<_>>())
}

/// So many engines in a process of their own, and where they are. The program has to run [`engines::run`] as the role
/// [`engines::ROLE`].
///
/// # Panics
/// When they do not start.
pub fn start_engines(count: usize) -> (Process, Vec<SocketAddr>) {
    let mut engines = role(&format!("{} {count}", engines::ROLE));
    let addresses = engines.wait_for_line("the engines' addresses", |line| {
        line.split(' ').map(|address| address.parse().ok()).collect()
    });
    (engines, addresses)
}

/// This program in another role, as a process of its own.
///
/// # Panics
/// When it cannot be started.
pub fn role(arguments: &str) -> Process {
    let mut command = Command::new(std::env::current_exe().expect("a path"));
    command.args(arguments.split(' '));
    Process::spawn(arguments, command)
}
