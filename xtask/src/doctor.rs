//! Whether this machine has what building and testing needs, and one line to get the rest.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::bail;

use crate::cargo::{command, output};
use crate::test::Tier;

struct Need {
    what: &'static str,
    program: &'static str,
    arguments: &'static [&'static str],
    /// Lowest `major.minor` in the program's answer.
    at_least: Option<(u32, u32)>,
    /// Debian packages that bring it.
    packages: &'static str,
    /// Only these tiers of tests need it; empty: everything does.
    tiers: &'static [Tier],
}

/// Tiers that talk to programs of `e2e/tools`.
const TOOLS: &[Tier] = &[Tier::Processes, Tier::Node];
/// Tier 2 leaves out the tests with the Node client where there is no Node.
const NODE: &[Tier] = &[Tier::Node];
/// Tiers that start a Kubernetes.
const KUBERNETES: &[Tier] = &[Tier::Control, Tier::Node];

const NEEDS: [Need; 7] = [
    Need {
        what: "Rust toolchain",
        program: "rustc",
        arguments: &["--version"],
        at_least: None,
        packages: "rustup",
        tiers: &[],
    },
    Need {
        what: "C compiler",
        program: "cc",
        arguments: &["--version"],
        at_least: None,
        packages: "build-essential",
        tiers: &[],
    },
    Need {
        what: "Python ≥ 3.10",
        program: "python3",
        arguments: &["--version"],
        at_least: Some((3, 10)),
        packages: "python3",
        tiers: TOOLS,
    },
    Need {
        what: "Python's venv and pip",
        program: "python3",
        arguments: &["-c", "import venv, ensurepip, pip"],
        at_least: None,
        packages: "python3-venv python3-pip",
        tiers: TOOLS,
    },
    Need {
        what: "Node ≥ 20",
        program: "node",
        arguments: &["--version"],
        at_least: Some((20, 0)),
        packages: "nodejs",
        tiers: NODE,
    },
    Need {
        what: "npm",
        program: "npm",
        arguments: &["--version"],
        at_least: None,
        packages: "npm",
        tiers: NODE,
    },
    Need {
        // an older one with this version fetches the one that the modules name
        what: "Go ≥ 1.21",
        program: "go",
        arguments: &["version"],
        at_least: Some((1, 21)),
        packages: "golang-go (of Debian 13 or newer; else https://go.dev/dl)",
        tiers: KUBERNETES,
    },
];

/// Whether tests with the Node client can run.
pub(crate) fn has_node() -> bool {
    let node = NEEDS
        .iter()
        .filter(|need| need.packages == "nodejs" || need.packages == "npm");
    node.map(probe).all(|found| found.is_ok())
}

/// Prints a line per need.
pub(crate) fn run() -> anyhow::Result<()> {
    check(&Tier::ALL.into_iter().collect())
}

/// Prints a line per need of these tiers of tests.
pub(crate) fn check(tiers: &BTreeSet<Tier>) -> anyhow::Result<()> {
    let mut missing = Vec::new();
    let needed = |need: &&Need| need.tiers.is_empty() || need.tiers.iter().any(|tier| tiers.contains(tier));
    for need in NEEDS.iter().filter(needed) {
        let found = probe(need);
        println!(
            "{} {}",
            if found.is_ok() { "ok     " } else { "missing" },
            describe(need, &found)
        );
        if found.is_err() {
            missing.push(need.packages);
        }
    }
    if !missing.is_empty() {
        bail!(
            "install what is missing, on Debian or Ubuntu: apt-get install {}",
            missing.join(" ")
        );
    }
    Ok(())
}

fn describe(need: &Need, found: &Result<String, String>) -> String {
    match found {
        Ok(version) | Err(version) if version.is_empty() => need.what.to_owned(),
        Ok(version) | Err(version) => format!("{}: {version}", need.what),
    }
}

fn probe(need: &Need) -> Result<String, String> {
    let mut probe: Command = command(need.program);
    probe.args(need.arguments);
    let text = output(probe).map_err(|_| "cannot be run".to_owned())?;
    let line = text.lines().next().unwrap_or_default().to_owned();
    match need.at_least {
        Some(least) if version(&line).is_none_or(|found| found < least) => Err(line),
        _ => Ok(line),
    }
}

/// The first `major.minor` in a text such as `Python 3.11.7` or `v20.20.2`.
fn version(text: &str) -> Option<(u32, u32)> {
    let start = text.find(|c: char| c.is_ascii_digit())?;
    let mut numbers = text[start..].split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(version("Python 3.11.7"), Some((3, 11)));
        assert_eq!(version("v20.20.2"), Some((20, 20)));
        assert!(version("Python 3.9.1") < Some((3, 10)));
        assert_eq!(version("none"), None);
    }
}
