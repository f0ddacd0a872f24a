//! The cluster of the tests by hand, and our image; `cargo xtask cluster` and `cargo xtask image` run it.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool for developers"
)]

mod by_hand;
mod images;

use clap::{Parser, Subcommand};
use llmd_e2e_cluster::Cluster;

#[derive(Parser)]
#[command(about = "A Kubernetes for tests and developers", disable_version_flag = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Start a cluster that stays; prints its kubeconfig.
    Up(by_hand::Up),
    /// Holds the cluster of `up`; not for people.
    #[command(hide = true)]
    Hold(by_hand::Up),
    /// End the cluster of `up`.
    Down,
    /// A shell, or a command, with `kubectl`, `helm` and KUBECONFIG of the cluster of `up`.
    Shell(by_hand::Shell),
    /// Pack the images of an llmd binary, and push them.
    Image(images::Image),
    /// Print what this machine lacks for real nodes, a line each.
    Probe,
}

#[tokio::main]
async fn main() -> std::process::ExitCode {
    match run(Arguments::parse().verb).await {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

async fn run(verb: Verb) -> anyhow::Result<()> {
    match verb {
        Verb::Up(up) => by_hand::up(&up).await,
        Verb::Hold(up) => by_hand::hold(&up).await,
        Verb::Down => by_hand::down().await,
        Verb::Shell(shell) => by_hand::shell(&shell),
        Verb::Image(image) => images::run(&image).await,
        Verb::Probe => {
            for missing in Cluster::missing_for_nodes() {
                println!("{missing}");
            }
            Ok(())
        }
    }
}
