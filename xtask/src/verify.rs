//! The planner against another solver; see wva/plan/oracle/.

use anyhow::Context;
use clap::Args;
use std::path::PathBuf;

use crate::cargo::{command, llmd, output, run as run_command};

/// The solver whose optima are stored in the tests.
const HIGHSPY: &str = "highspy==1.16.0";

#[derive(Args)]
pub(crate) struct Arguments {
    /// Fleets that are generated and solved by both.
    #[arg(long, default_value_t = 1000)]
    fleets: u32,
    /// Write the tests' fleets with their optima anew instead.
    #[arg(long)]
    store: bool,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let tools = PathBuf::from(output(command("e2e/tools/install.sh"))?.trim());
    let cache = tools.parent().context("the tools lie in the cache directory")?;
    let venv = cache.join(HIGHSPY.replace("==", "-"));
    let python = venv.join("bin/python");
    if !python.exists() {
        let mut make = command("python3");
        make.args(["-m", "venv"]).arg(&venv);
        run_command(make)?;
        let mut install = command(&python);
        install.args(["-m", "pip", "install", "--quiet", HIGHSPY]);
        run_command(install)?;
    }
    let mut oracle = command(&python);
    oracle
        .arg("wva/plan/oracle/oracle.py")
        .arg("--llmd")
        .arg(llmd(false)?);
    if arguments.store {
        oracle.args(["--store", "wva/plan/tests/data/optima.json"]);
    } else {
        oracle.arg("--verify").arg(arguments.fleets.to_string());
    }
    run_command(oracle)
}
