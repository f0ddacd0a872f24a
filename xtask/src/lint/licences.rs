//! Licences and banned crates, as deny.toml lists them (the file cargo-deny reads as well).

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::cargo::{Metadata, root};

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

pub(crate) fn check(metadata: &Metadata) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(root().join("deny.toml")).context("deny.toml")?;
    let deny: Deny = toml::from_str(&text).context("deny.toml")?;
    let mut wrong = Vec::new();
    for package in &metadata.packages {
        if let Some(banned) = deny.bans.deny.iter().find(|banned| banned.name == package.name) {
            wrong.push(format!("{} is banned: {}", package.name, banned.reason));
        }
        let licence = package.license.as_deref().unwrap_or("none given");
        if !allowed(licence, &deny.licenses.allow) {
            wrong.push(format!(
                "{} {}: licence {licence:?} is not allowed",
                package.name, package.version
            ));
        }
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
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
