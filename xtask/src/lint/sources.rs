//! Rules about source text that no compiler checks.

use std::path::Path;

use anyhow::bail;

use crate::cargo::{command, output, root};

/// Longest file without a reason, in lines.
const LONG: usize = 500;

/// Files that are longer, and why one file is still right.
const LONG_WITH_REASON: &[(&str, &str)] = &[];

/// Directories of crates that never read the clock: shells hand instants in.
const PURE: [&str; 6] = [
    "openai/src/",
    "epp/api/src/",
    "epp/kv/src/",
    "epp/core/src/",
    "operator/render/src/",
    "crds/src/",
];

/// Calls that a pure crate may not make outside its tests.
const CLOCKS: [&str; 3] = ["Instant::now(", "SystemTime::now(", "env::var("];

pub(crate) fn check() -> anyhow::Result<()> {
    let mut list = command("git");
    list.args(["ls-files", "--cached", "--others", "--exclude-standard"]);
    let mut wrong = Vec::new();
    for path in output(list)?.lines() {
        // A file that is listed but deleted, or no text, has nothing to check.
        let Ok(text) = std::fs::read_to_string(root().join(path)) else {
            continue;
        };
        if !path.starts_with("xtask/src/lint/") {
            words(path, &text, &mut wrong);
        }
        if Path::new(path)
            .extension()
            .is_some_and(|extension| extension == "rs")
        {
            rust(path, &text, &mut wrong);
        }
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    Ok(())
}

fn words(path: &str, text: &str, wrong: &mut Vec<String>) {
    // Built from pieces so that this file does not find itself.
    let todo = ["TO", "DO"].concat();
    let fixme = ["FIX", "ME"].concat();
    for (number, line) in text.lines().enumerate() {
        let found = [
            (&todo, "unfinished work belongs into an issue"),
            (&fixme, "mend it or file it"),
        ]
        .into_iter()
        .find(|(word, _)| line.contains(word.as_str()));
        if let Some((word, reason)) = found {
            wrong.push(format!("{path}:{}: {word}: {reason}", number + 1));
        }
    }
}

fn rust(path: &str, text: &str, wrong: &mut Vec<String>) {
    let lines = text.lines().count();
    if lines > LONG && !LONG_WITH_REASON.iter().any(|(long, _)| *long == path) {
        wrong.push(format!(
            "{path} has {lines} lines (limit {LONG}): is there a natural seam?"
        ));
    }
    let for_tests = path.ends_with("/tests.rs") || path.ends_with("/testing.rs");
    let is_pure = PURE.iter().any(|directory| path.starts_with(directory)) && !for_tests;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("#[ignore") {
            wrong.push(format!("{path}:{}: an ignored test proves nothing", number + 1));
        }
        if line.trim() == "#[cfg(test)]" && is_pure {
            break; // unit tests stand at the end of a file
        }
        if is_pure && !line.trim_start().starts_with("//") && CLOCKS.iter().any(|call| line.contains(call)) {
            wrong.push(format!(
                "{path}:{}: a pure crate takes time and environment as arguments",
                number + 1
            ));
        }
    }
}
