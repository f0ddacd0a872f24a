//! `cargo xtask test`: set-up, one build, all tiers, one closing line.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use anyhow::{Context, bail};

use crate::cargo::{cargo, command, llmd, run as run_command};
use crate::doctor;

/// Tiers that exist. 1: unit, property and loopback component tests of each crate. 2: journeys over
/// real processes (Envoy, official clients).
const TIERS: [u8; 2] = [1, 2];

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Tiers to run, such as `1` or `1,2`; all by default.
    #[arg(long, value_delimiter = ',')]
    tier: Vec<u8>,
    /// Only tests whose name contains this.
    filter: Option<String>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let tiers = if arguments.tier.is_empty() {
        TIERS.to_vec()
    } else {
        arguments.tier.clone()
    };
    if let Some(unknown) = tiers.iter().find(|tier| !TIERS.contains(tier)) {
        bail!("--tier {unknown}: there is no such tier; use 1 (crates) or 2 (real processes)");
    }
    doctor::run()?;
    let mut test = cargo(&["test", "--locked", "--no-fail-fast"]);
    match (tiers.contains(&1), tiers.contains(&2)) {
        (true, false) => test.args(["--workspace", "--exclude", "llmd-e2e"]),
        (false, true) => test.args(["--package", "llmd-e2e"]),
        _ => test.arg("--workspace"),
    };
    if tiers.contains(&2) {
        run_command(command("e2e/tools/install.sh"))?;
        test.env("LLMD_BIN", llmd(false)?);
    }
    test.args(arguments.filter.as_deref());

    let mut child = test
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo test")?;
    let (mut passed, mut failed) = (0, 0);
    for line in BufReader::new(child.stdout.take().context("piped output")?).lines() {
        let line = line?;
        if let Some((one, other)) = result_line(&line) {
            passed += one;
            failed += other;
        }
        println!("{line}");
    }
    let status = child.wait()?;
    println!("\n{passed} passed, {failed} failed");
    if !status.success() {
        bail!("tests failed");
    }
    Ok(())
}

/// `test result: ok. 3 passed; 0 failed; …` as (3, 0).
fn result_line(line: &str) -> Option<(u64, u64)> {
    let counts = line.strip_prefix("test result: ")?.split_once(". ")?.1;
    let mut counts = counts
        .split("; ")
        .map(|count| count.split(' ').next()?.parse().ok());
    Some((counts.next()??, counts.next()??))
}

#[cfg(test)]
mod tests {
    use super::result_line;

    #[test]
    fn the_closing_lines_of_test_binaries_are_counted() {
        let line =
            "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s";
        assert_eq!(result_line(line), Some((12, 3)));
        assert_eq!(result_line("running 3 tests"), None);
    }
}
