//! Figures and the page that keeps them.

use std::collections::BTreeMap;

use anyhow::Context;
use serde::Deserialize;

use super::beside::{self, Beside};
use crate::cargo::{command, output, root};

const PAGE: &str = "docs/benchmarks.md";

/// Starts a line of JSON that a bench program writes per figure.
const MARK: &str = "figure: ";

/// Starts the line that says when and where figures were measured last.
const LAST_RUN: &str = "Written by `cargo xtask bench`; last run: ";

/// One measured number.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Figure {
    /// What was measured.
    pub(crate) name: String,
    /// How much, in `unit`.
    pub(crate) value: f64,
    /// Unit of value and budget.
    pub(crate) unit: String,
    /// The most it may be; `None` is for information.
    #[serde(default)]
    pub(crate) budget: Option<f64>,
    /// How it was measured.
    #[serde(default)]
    pub(crate) note: String,
}

impl Figure {
    /// Reads a program's own line.
    pub(crate) fn parse(line: &str) -> anyhow::Result<Option<Self>> {
        let fields = line.strip_prefix(MARK).map(serde_json::from_str);
        fields
            .transpose()
            .with_context(|| format!("not a figure: {line}"))
    }

    /// Whether it is within its budget.
    pub(crate) fn holds(&self) -> bool {
        self.budget.is_none_or(|budget| self.value <= budget)
    }

    fn row(&self) -> String {
        let number = |value: f64| format!("{} {}", short(value), self.unit).trim_end().to_owned();
        let budget = self
            .budget
            .map_or_else(String::new, |budget| format!("≤ {}", number(budget)));
        let verdict = match (self.budget, self.holds()) {
            (None, _) => "",
            (Some(_), true) => "holds",
            (Some(_), false) => "**over**",
        };
        format!(
            "| {} | {} | {budget} | {verdict} | {} |",
            self.name,
            number(self.value),
            self.note
        )
    }
}

/// Three digits that count.
fn short(value: f64) -> String {
    let digits = match value.abs() {
        large if large >= 100.0 => 0,
        middle if middle >= 10.0 => 1,
        small if small >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

/// Writes the page; rows of figures that were not measured now stay, as does the comparison.
pub(super) fn write(figures: &[Figure], beside: Option<&Beside>) -> anyhow::Result<()> {
    let path = root().join(PAGE);
    let before = std::fs::read_to_string(&path).unwrap_or_default();
    println!();
    for figure in figures {
        println!("{}", figure.row());
    }
    let page = page(&before, figures, beside, &machine()?);
    std::fs::write(&path, page).with_context(|| format!("cannot write {PAGE}"))
}

/// The page after `before`, with what was measured now on `machine`.
fn page(before: &str, figures: &[Figure], beside: Option<&Beside>, machine: &str) -> String {
    let (head, kept) = beside::split(before);
    let rows = head
        .lines()
        .filter_map(|line| Some((row_name(line)?.to_owned(), line.to_owned())));
    let mut rows: BTreeMap<String, String> = rows.collect();
    rows.extend(figures.iter().map(|figure| (figure.name.clone(), figure.row())));
    let last_run = head.lines().find_map(|line| line.strip_prefix(LAST_RUN));
    let last_run = match last_run {
        // A comparison says itself where and when it was made.
        Some(line) if figures.is_empty() => line.to_owned(),
        _ => format!("{machine}."),
    };
    let rows: Vec<String> = rows.into_values().collect();
    let section = beside.map_or_else(|| kept.to_owned(), |beside| beside.section(machine));
    format!(
        "# Benchmarks\n\n{LAST_RUN}{last_run}\nA figure without a budget is for information.\n\n\
         | Figure | Measured | Budget | | How |\n|---|---|---|---|---|\n{}\n{section}",
        rows.join("\n")
    )
}

fn row_name(line: &str) -> Option<&str> {
    let name = line.strip_prefix("| ")?.split(" | ").next()?;
    (name != "Figure").then_some(name)
}

fn machine() -> anyhow::Result<String> {
    let mut date = command("date");
    date.args(["-u", "+%Y-%m-%d"]);
    let mut rust = command("rustc");
    rust.arg("--version");
    let (date, rust) = (output(date)?, output(rust)?);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processor
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1))
        .unwrap_or("unknown processor");
    Ok(format!(
        "{}, {cores} cores ({model}), {}",
        date.trim(),
        rust.trim()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_programs_line_becomes_a_row() {
        let figure = Figure::parse(r#"figure: {"name":"a","value":1.5,"unit":"ms","budget":1.6}"#)
            .unwrap()
            .unwrap();
        assert!(figure.holds());
        assert_eq!(figure.row(), "| a | 1.50 ms | ≤ 1.60 ms | holds |  |");
        assert_eq!(row_name(&figure.row()), Some("a"));
        assert!(!Figure { value: 2.0, ..figure }.holds());
        assert!(Figure::parse("running 1 test").unwrap().is_none());
        assert!(Figure::parse("figure: 3").is_err());
        assert_eq!(row_name("|---|---|"), None);
    }

    #[test]
    fn each_run_keeps_what_it_did_not_measure() {
        let figure = |name: &str, value: f64| Figure {
            name: name.to_owned(),
            value,
            unit: "ms".to_owned(),
            budget: None,
            note: String::new(),
        };
        let first = page("", &[figure("a", 1.0), figure("b", 2.0)], None, "one");
        let beside = Beside::sample();
        let second = page(&first, &[], Some(&beside), "two");
        assert!(second.contains("last run: one.\n"), "{second}");
        assert!(second.contains(&beside.section("two")), "{second}");
        let third = page(&second, &[figure("b", 3.0)], None, "three");
        assert!(
            third.contains("last run: three.\n") && third.contains("| a | 1.00 ms |"),
            "{third}"
        );
        assert!(
            third.contains("| b | 3.00 ms |") && !third.contains("| b | 2.00 ms |"),
            "{third}"
        );
        assert!(third.ends_with(&beside.section("two")), "{third}");
        assert_eq!(third.matches(&beside.section("two")).count(), 1);
    }
}
