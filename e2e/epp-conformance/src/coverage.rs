//! Which rows of the reference have a case.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::ensure;

use crate::case::Selected;

/// Rows by section, as `sheet#section: [row, …]`.
const ROWS: &str = include_str!("../rows.yaml");
/// Rows without a case, each with the reason.
const UNCOVERED: &str = include_str!("../uncovered.yaml");

/// What the cases show of the reference.
#[derive(Debug)]
pub struct Coverage {
    /// Cases by row, `sheet#section/row`.
    pub rows: BTreeMap<String, Vec<String>>,
    /// Rows that are known to have no case, with the reason.
    pub excused: BTreeMap<String, String>,
}

/// Counts the cases of each row; a case that cites a row that is not in the index is an error.
pub fn coverage(cases: &[Selected]) -> anyhow::Result<Coverage> {
    let index: BTreeMap<String, Vec<String>> = serde_yaml::from_str(ROWS)?;
    let mut rows: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (section, names) in &index {
        for name in names {
            let is_new = rows.insert(format!("{section}/{name}"), Vec::new()).is_none();
            ensure!(is_new, "rows.yaml has {section}/{name} twice");
        }
    }
    for case in cases {
        for row in &case.case.sheet {
            let Some(cases) = rows.get_mut(row) else {
                anyhow::bail!("{} cites {row}, which is not in rows.yaml", case.id);
            };
            cases.push(case.id.clone());
        }
    }
    let excused: BTreeMap<String, String> = serde_yaml::from_str(UNCOVERED)?;
    Ok(Coverage { rows, excused })
}

impl Coverage {
    /// Rows without a case.
    pub fn without(&self) -> BTreeSet<&str> {
        let without = self.rows.iter().filter(|(_, cases)| cases.is_empty());
        without.map(|(row, _)| row.as_str()).collect()
    }
}
