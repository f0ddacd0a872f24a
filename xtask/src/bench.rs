//! Measurements against their budgets.

use crate::cargo::{cargo, run as run_command};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only benches whose name contains this.
    filter: Option<String>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut bench = cargo(&["bench", "--locked", "--workspace", "--benches"]);
    bench.args(arguments.filter.as_deref());
    run_command(bench)
}
