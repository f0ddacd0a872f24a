//! Our picker beside another one: the bench `extproc` told to compare, and the section it becomes.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, bail};
use serde::Deserialize;

use super::each_line;
use crate::cargo::{cargo, command, llmd, run};

/// Starts the line of JSON that the bench program writes at its end.
const MARK: &str = "beside: ";
const HEADING: &str = "\n## Beside upstream's picker\n";

/// What one run of both found.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Beside {
    /// The other picker's commit, where it tells it.
    commit: Option<String>,
    /// Load average of the machine before and after.
    load: [f64; 2],
    rows: Vec<Row>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    /// Least that the stack can do, where it takes part.
    floor: Option<String>,
    ours: String,
    theirs: String,
    /// How many times better ours is.
    ratio: String,
    how: String,
}

/// Builds ours in release and measures both.
///
/// # Errors
/// When the other one cannot be started or a step of the measurement fails.
pub(super) fn measure(picker: &Path) -> anyhow::Result<Beside> {
    let picker = std::path::absolute(picker)?;
    if !picker.is_file() {
        bail!("{} is no program: build the other picker first", picker.display());
    }
    run(command("e2e/tools/install.sh"))?;
    let llmd = llmd(true)?;
    let mut program = cargo(&["bench", "--locked", "--workspace", "--bench", "extproc"]);
    program.env("LLMD_BIN", llmd).env("LLMD_BENCH_BESIDE", picker);
    let mut found = None;
    each_line(&mut program, |line| {
        if let Some(fields) = line.strip_prefix(MARK) {
            found = Some(serde_json::from_str(fields).with_context(|| format!("no comparison: {line}"))?);
        }
        Ok(())
    })?;
    found.context("the bench ended without a comparison")
}

/// A page without the section, and the section; empty where there is none.
pub(super) fn split(page: &str) -> (&str, &str) {
    page.split_at(page.find(HEADING).unwrap_or(page.len()))
}

impl Beside {
    /// The section of the page.
    pub(super) fn section(&self, machine: &str) -> String {
        let commit = self.commit.as_ref().map_or_else(
            || "of a build that does not tell its commit".to_owned(),
            |commit| format!("of commit `{commit}`"),
        );
        let mut section = format!(
            "{HEADING}\n\
             Written by `cargo xtask bench --beside PICKER`: llm-d-router's picker {commit}; {machine}.\n\
             Load average of the machine {:.1} before the run, which is the work of others, and {:.1} after it.\n\
             Equal Envoys, the same engines, configuration (the default plugins with the approximate prefix) and\n\
             load. CPU and memory are the picker's alone; only one of them runs at a time. What scraping costs\n\
             has its own row and is not in those per request. Floor: a server on llmd's stack that answers with\n\
             the next endpoint and echoes the bodies.\n\n\
             | | Floor | llmd | Upstream | llmd better by | How |\n|---|---|---|---|---|---|\n",
            self.load[0], self.load[1]
        );
        for row in &self.rows {
            let floor = row.floor.as_deref().unwrap_or_default();
            let cells = [&row.name, floor, &row.ours, &row.theirs, &row.ratio, &row.how];
            // Writing to a string cannot fail.
            let _ = writeln!(section, "| {} |", cells.join(" | "));
        }
        section
    }

    #[cfg(test)]
    pub(super) fn sample() -> Self {
        let fields = r#"{"commit":"abc","load":[3.25,4],"rows":[{"name":"CPU","floor":null,
            "ours":"1 s","theirs":"2 s","ratio":"2.00 ×","how":"twice"}]}"#;
        serde_json::from_str(fields).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comparison_becomes_a_section_that_is_found_again() {
        let section = Beside::sample().section("4 cores");
        assert!(section.contains("of commit `abc`; 4 cores."), "{section}");
        assert!(
            section.contains("\n| CPU |  | 1 s | 2 s | 2.00 × | twice |\n"),
            "{section}"
        );
        let page = format!("# Benchmarks\n\n| a | b |\n{section}");
        assert_eq!(split(&page), ("# Benchmarks\n\n| a | b |\n", section.as_str()));
        assert_eq!(split("# Benchmarks\n"), ("# Benchmarks\n", ""));
    }
}
