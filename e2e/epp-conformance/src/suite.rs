//! The files of cases, built into the program.

use crate::case::{Selected, load, selected};

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../cases/", $name, ".yaml")))),*]
    };
}

/// Names and contents of the files in `cases/`; a test compares the list with the folder.
pub const FILES: &[(&str, &str)] = files![
    "config", "data", "filters", "hermetic", "parsers", "process", "profiles", "protocol", "scorers"
];

/// All cases, in the order of the files.
pub fn cases() -> anyhow::Result<Vec<Selected>> {
    let mut cases = Vec::new();
    for (name, text) in FILES {
        cases.extend(selected(&load(name, text)?)?);
    }
    Ok(cases)
}
