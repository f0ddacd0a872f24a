//! Reads `docs/epp-metrics.md`.

#![allow(clippy::panic, reason = "a failed expectation of a test")]

use std::collections::{BTreeMap, BTreeSet};

const DOCUMENT: &str = include_str!("../../../../../docs/epp-metrics.md");

/// One family as the reference has it.
pub(super) struct Expected {
    pub(super) kind: String,
    pub(super) labels: BTreeSet<String>,
    pub(super) buckets: Vec<String>,
    /// How its help text begins; empty for any.
    pub(super) help: String,
    /// Something has to happen that the journey of the test does not cause.
    pub(super) is_rare: bool,
}

/// The families by name, twins among them.
pub(super) struct Reference {
    pub(super) families: BTreeMap<String, Expected>,
}

/// One query and where it stands.
pub(super) struct Query {
    pub(super) text: String,
    pub(super) source: String,
}

/// Rows of the tables whose header's first cell is `first`.
fn rows(first: &str) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    let mut is_inside = false;
    for line in DOCUMENT.lines() {
        if !line.starts_with('|') {
            is_inside = false;
            continue;
        }
        // `\|` is part of a cell.
        let line = line.replace("\\|", "\u{1}");
        let cells: Vec<String> = line
            .trim_matches('|')
            .split('|')
            .map(|cell| cell.trim().replace('\u{1}', "|"))
            .collect();
        if cells[0] == first {
            is_inside = true;
        } else if is_inside && !cells[0].starts_with("--") {
            rows.push(cells);
        }
    }
    rows
}

/// `a, b` or `L`, with letters for the sets at the head of the document.
fn words(cell: &str, sets: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let parts = cell.split([',', ' ']).filter(|part| !part.is_empty());
    parts
        .flat_map(|part| {
            let part = part.trim_matches('`').to_owned();
            sets.get(&part).cloned().unwrap_or_else(|| vec![part])
        })
        .collect()
}

/// A bound as the page writes it.
fn bound(text: &str) -> String {
    text.parse::<f64>().expect("a number").to_string()
}

impl Reference {
    pub(super) fn read() -> Self {
        let mut sets = BTreeMap::new();
        for row in rows("Set") {
            sets.insert(
                row[0].trim_matches('`').to_owned(),
                words(&row[1], &BTreeMap::new()),
            );
        }
        let mut families = BTreeMap::new();
        for row in rows("Metric") {
            let [name, kind, labels, buckets, twin, _] = &row[..] else {
                panic!("a row of another shape: {row:?}")
            };
            let is_rare = name.ends_with(" (rare)");
            let name = name.trim_end_matches(" (rare)").trim_matches('`');
            let bounds: Vec<String> = words(buckets, &sets).iter().map(|text| bound(text)).collect();
            let family = |labels: &str| Expected {
                kind: kind.clone(),
                labels: words(labels, &sets).into_iter().collect(),
                buckets: bounds.clone(),
                help: String::new(),
                is_rare,
            };
            let name = if name.starts_with("llmd_") {
                name.to_owned()
            } else {
                format!("llm_d_epp_{name}")
            };
            if !twin.is_empty() {
                let (twin, labels) = twin.split_once(" {").unwrap_or((twin, labels));
                let labels = labels.trim_end_matches('}');
                let twin = twin.trim_matches('`').to_owned();
                let help = format!("[ALPHA] [Deprecated: Use {name}] ");
                families.insert(
                    twin,
                    Expected {
                        help,
                        ..family(labels)
                    },
                );
            }
            families.insert(name, family(labels));
        }
        assert!(families.len() > 40, "the tables are read");
        Self { families }
    }
}

/// The queries of the field.
pub(super) fn queries() -> Vec<Query> {
    let queries: Vec<Query> = rows("Query")
        .into_iter()
        .map(|row| Query {
            text: row[0].trim_matches('`').to_owned(),
            source: row[1].clone(),
        })
        .collect();
    assert!(queries.len() > 10, "the table is read");
    queries
}
