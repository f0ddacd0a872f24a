//! `cargo xtask lint`: everything that must hold besides the tests.

mod arrows;
mod licences;
mod scripts;
mod sources;

use crate::cargo::{cargo, metadata, run as run_command};
use crate::generate;

pub(crate) fn run() -> anyhow::Result<()> {
    step("format", || run_command(cargo(&["fmt", "--all", "--check"])))?;
    step("sources", sources::check)?;
    step("scripts", scripts::check)?;
    let metadata = metadata()?;
    step("arrows", || arrows::check(&metadata))?;
    step("licences and bans", licences::check)?;
    step("clippy", || {
        run_command(cargo(&[
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "-D",
            "warnings",
        ]))
    })?;
    step("generated files", || generate::run(&generate::Arguments::check()))
}

fn step(name: &str, check: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    println!("lint: {name}");
    check()
}
