//! Developer verbs: `cargo xtask test|lint|generate|bench|doctor|fuzz|cluster|image|release|verify|real-vllm`.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool for developers"
)]

mod bench;
mod cargo;
mod cluster;
mod doctor;
mod fuzz;
mod generate;
mod lint;
mod real_vllm;
mod release;
mod test;
mod verify;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Developer verbs of llmd", disable_version_flag = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install what tests need, build once, run all tests.
    Test(test::Arguments),
    /// Format, clippy, arrows between crates, sources, licences, generated files.
    Lint,
    /// Write the files that are generated from code.
    Generate(generate::Arguments),
    /// Measure and compare with the budgets; writes docs/benchmarks.md.
    Bench(bench::Arguments),
    /// Check that this machine has what building and testing needs.
    Doctor,
    /// Run the fuzz targets for a bounded time.
    Fuzz(fuzz::Arguments),
    /// A Kubernetes on this machine, without Docker.
    #[command(subcommand)]
    Cluster(cluster::Verb),
    /// Pack our images from the binary, without Docker, and push them.
    Image(cluster::Image),
    /// Make what a release publishes: programs, chart, bill of materials, checksums.
    Release(release::Arguments),
    /// Compare the planner's plans with the optima of another solver.
    Verify(verify::Arguments),
    /// Check llmd against a real vLLM on CPU (installs 6 GB on first use).
    RealVllm,
}

fn main() -> std::process::ExitCode {
    match run(Arguments::parse().verb) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> anyhow::Result<()> {
    match verb {
        Verb::Test(arguments) => test::run(&arguments),
        Verb::Lint => lint::run(),
        Verb::Generate(arguments) => generate::run(&arguments),
        Verb::Bench(arguments) => bench::run(&arguments),
        Verb::Doctor => doctor::run(),
        Verb::Fuzz(arguments) => fuzz::run(&arguments),
        Verb::Cluster(verb) => cluster::cluster(&verb),
        Verb::Image(arguments) => cluster::image(&arguments),
        Verb::Release(arguments) => release::run(&arguments),
        Verb::Verify(arguments) => verify::run(&arguments),
        Verb::RealVllm => real_vllm::run(),
    }
}
