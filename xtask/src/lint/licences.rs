//! Licences and banned crates, as deny.toml lists them (the file cargo-deny reads as well).

use std::collections::BTreeSet;

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::cargo::{cargo, output, root};

#[derive(Deserialize)]
struct Deny {
    licenses: Licenses,
    bans: Bans,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Banned>,
}

#[derive(Deserialize)]
struct Banned {
    name: String,
    reason: String,
}

pub(crate) fn check() -> anyhow::Result<()> {
    let text = std::fs::read_to_string(root().join("deny.toml")).context("deny.toml")?;
    let deny: Deny = toml::from_str(&text).context("deny.toml")?;
    let mut wrong = BTreeSet::new();
    // `cargo metadata` joins the features of all targets and would show crates that no build has.
    let tree = [
        "tree",
        "--workspace",
        "--locked",
        "--target",
        "all",
        "--prefix",
        "none",
        "--format",
        "{p}|{l}",
    ];
    for line in output(cargo(&tree))?.lines() {
        let (package, licence) = line.split_once('|').unwrap_or((line, ""));
        let licence = licence.trim_end_matches(" (*)");
        let name = package.split(' ').next().unwrap_or_default();
        if let Some(banned) = deny.bans.deny.iter().find(|banned| banned.name == name) {
            wrong.insert(format!("{name} is banned: {}", banned.reason));
        }
        if !name.is_empty() && !allowed(licence, &deny.licenses.allow) {
            wrong.insert(format!("{package}: licence {licence:?} is not allowed"));
        }
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.into_iter().collect::<Vec<_>>().join("\n"));
    }
    Ok(())
}

fn allowed(expression: &str, allow: &[String]) -> bool {
    spdx::Expression::parse_mode(expression, spdx::ParseMode::LAX).is_ok_and(|expression| {
        expression.evaluate(|requirement| allow.iter().any(|allowed| *allowed == requirement.to_string()))
    })
}

#[cfg(test)]
mod tests {
    use super::allowed;

    #[test]
    fn expressions_are_evaluated() {
        let allow = ["MIT", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned);
        assert!(allowed("MIT OR GPL-3.0-only", &allow));
        assert!(allowed("MIT/Apache-2.0", &allow));
        assert!(!allowed("MIT AND GPL-3.0-only", &allow));
        assert!(allowed("Apache-2.0 WITH LLVM-exception", &allow));
        assert!(!allowed("none given", &allow));
    }
}
