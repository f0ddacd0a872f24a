//! Runs the benchmarks in release and keeps their figures, against the budgets, in `docs/benchmarks.md`.

mod beside;
mod cold;
mod divan;
mod report;

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::cargo::{cargo, command, llmd, metadata, run as run_command};
use report::Figure;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only benches whose name contains this; the file keeps the figures of the others.
    filter: Option<String>,
    /// Clone, build and start from nothing instead, and time it to the first token.
    #[arg(long, conflicts_with = "filter")]
    cold: bool,
    /// Measure our picker and this one side by side instead: a program that takes upstream's flags.
    #[arg(long, value_name = "PICKER", conflicts_with_all = ["filter", "cold"])]
    beside: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if let Some(picker) = &arguments.beside {
        return report::write(&[], Some(&beside::measure(picker)?));
    }
    let figures = if arguments.cold {
        vec![cold::clone_to_first_token()?]
    } else {
        measure_all(arguments.filter.as_deref().unwrap_or_default())?
    };
    if figures.is_empty() {
        bail!("no bench program has such a name");
    }
    report::write(&figures, None)?;
    let over: Vec<&str> = figures
        .iter()
        .filter(|figure| !figure.holds())
        .map(|figure| figure.name.as_str())
        .collect();
    if !over.is_empty() {
        bail!("over budget: {}", over.join("; "));
    }
    Ok(())
}

fn measure_all(filter: &str) -> anyhow::Result<Vec<Figure>> {
    run_command(command("e2e/tools/install.sh"))?;
    let llmd = llmd(true)?;
    let mut figures = Vec::new();
    for (package, bench) in programs()? {
        if !bench.contains(filter) {
            continue;
        }
        println!("\nbench {bench} of {package}");
        // With the whole workspace's features, so that all benches share one build.
        let mut program = cargo(&["bench", "--locked", "--workspace", "--bench", &bench]);
        program.env("LLMD_BIN", &llmd);
        figures.extend(measure(&mut program, &bench).with_context(|| format!("bench {bench} of {package}"))?);
    }
    Ok(figures)
}

/// Package and name of every bench program of the workspace.
fn programs() -> anyhow::Result<Vec<(String, String)>> {
    let metadata = metadata()?;
    let members = metadata.workspace_members;
    let mut programs: Vec<_> = metadata
        .packages
        .into_iter()
        .filter(|package| members.contains(&package.id))
        .flat_map(|package| {
            let benches = package.targets.into_iter();
            let benches = benches.filter(|target| target.kind.iter().any(|kind| kind == "bench"));
            benches.map(move |target| (package.name.clone(), target.name))
        })
        .collect();
    programs.sort();
    Ok(programs)
}

/// Runs a program, shows what it says and takes the figures out: its own `figure:` lines, or the rows of
/// divan's table.
fn measure(program: &mut Command, bench: &str) -> anyhow::Result<Vec<Figure>> {
    let mut table = divan::Table::new(bench);
    let mut figures = Vec::new();
    each_line(program, |line| {
        match Figure::parse(line)? {
            Some(figure) => figures.push(figure),
            None => figures.extend(table.line(line)),
        }
        Ok(())
    })?;
    Ok(figures)
}

/// Runs a program and shows what it says, line by line.
fn each_line(program: &mut Command, mut take: impl FnMut(&str) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut child = program
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo bench")?;
    let stdout = child.stdout.take().context("cargo bench has no output")?;
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        println!("{line}");
        take(&line)?;
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("it failed with {status}");
    }
    Ok(())
}
