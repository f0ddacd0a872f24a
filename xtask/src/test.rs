//! `cargo xtask test`: set-up, one build, all tiers, one closing line.

mod binaries;
mod tiers;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::cargo::{cargo, command, llmd, output, run as run_command};
use crate::doctor;
pub(crate) use tiers::Tier;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Tiers to run, such as `1` or `1,2`; all that this machine can run by default. 1: crates, 2: real processes
    /// (Envoy, official clients), 3: a Kubernetes control plane, 4: Kubernetes with real nodes (root).
    #[arg(long, value_delimiter = ',')]
    tier: Vec<Tier>,
    /// Only tests whose name contains this.
    filter: Option<String>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let asked: BTreeSet<Tier> = arguments.tier.iter().copied().collect();
    let mut tiers = if asked.is_empty() {
        Tier::ALL.into_iter().collect()
    } else {
        asked.clone()
    };
    doctor::check(&tiers)?;
    let binary = llmd(false)?;
    let cluster = binary.with_file_name("llmd-cluster");
    let mut left_out = None;
    let given_cluster = std::env::var_os("LLMD_E2E_KUBECONFIG").is_some();
    if tiers.contains(&Tier::Node) && !given_cluster {
        run_command(cluster_build(&["packages"])).or_else(|error| missing_is_fatal(&asked, error))?;
        left_out = missing_for_nodes(&cluster)?;
        if let Some(missing) = &left_out {
            if asked.contains(&Tier::Node) {
                bail!("tier 4 cannot run on this machine; missing: {missing}");
            }
            tiers.remove(&Tier::Node);
        }
    }
    if tiers.contains(&Tier::Processes) || tiers.contains(&Tier::Node) {
        run_command(command("e2e/tools/install.sh"))?;
    }
    if tiers.contains(&Tier::Control) || tiers.contains(&Tier::Node) {
        run_command(cluster_build(&[]))?;
    }

    let selection = Selection {
        node: doctor::has_node(),
        given_cluster,
        tiers,
        filter: arguments.filter.clone(),
    };
    let mut total = Total::default();
    for test in binaries::build()? {
        for part in selection.parts() {
            let Some(mut run) = test.command(&part)? else {
                continue;
            };
            run.env("LLMD_BIN", &binary);
            println!("\n     Running {} of {}", test.target, test.package);
            total.add(run, &format!("{} of {}", test.target, test.package))?;
        }
    }
    if selection.tiers.contains(&Tier::Crates) {
        let mut documentation = cargo(&["test", "--locked", "--workspace", "--doc", "--no-fail-fast"]);
        documentation.args(arguments.filter.as_deref());
        total.add(documentation, "documentation")?;
    }
    println!("\n{} passed, {} failed", total.passed, total.failed);
    if selection.tiers.contains(&Tier::Processes) && !selection.node {
        println!("tests with the official client for Node did not run; missing: Node ≥ 20 with npm");
    }
    if let Some(missing) = left_out {
        println!("tier 4 (real nodes) did not run; missing: {missing}");
    }
    if !total.broken.is_empty() {
        bail!("tests failed: {}", total.broken.join(", "));
    }
    Ok(())
}

/// Which tests to run.
#[derive(Clone)]
struct Selection {
    tiers: BTreeSet<Tier>,
    /// Also those whose name says that they use the Node client.
    node: bool,
    /// Tier 4 runs on the cluster of `LLMD_E2E_KUBECONFIG`: without the tests that need nodes of our own.
    given_cluster: bool,
    /// A part of the names.
    filter: Option<String>,
}

impl Selection {
    /// Nodes after everything else: clusters live as long as the run of their tests, and all of them together are more
    /// than a machine allows (inotify instances, memory).
    fn parts(&self) -> impl Iterator<Item = Self> {
        let part = |is_part: fn(&Tier) -> bool| Self {
            tiers: self.tiers.iter().copied().filter(is_part).collect(),
            ..self.clone()
        };
        [part(|tier| *tier != Tier::Node), part(|tier| *tier == Tier::Node)].into_iter()
    }

    fn wants(&self, package: &str, tier: Tier, name: &str) -> bool {
        self.tiers.contains(&tier)
            && !(self.given_cluster && tier == Tier::Node && needs_own_nodes(package, name))
            && (self.node || !name.contains("node_client"))
            && self.filter.as_ref().is_none_or(|filter| name.contains(filter))
    }
}

/// Whether a test of tier 4 is about nodes that we make, or puts images and faults on them.
fn needs_own_nodes(package: &str, name: &str) -> bool {
    package == "llmd-e2e-cluster" || name.starts_with("node::faults::")
}

/// `e2e/cluster/build.sh` with parts.
fn cluster_build(parts: &[&str]) -> Command {
    let mut build = command("e2e/cluster/build.sh");
    build.args(parts);
    build
}

/// Packages that cannot be installed only matter when their tier was asked for by name.
fn missing_is_fatal(asked: &BTreeSet<Tier>, error: anyhow::Error) -> anyhow::Result<()> {
    if asked.contains(&Tier::Node) {
        return Err(error);
    }
    Ok(())
}

/// What this machine lacks for real nodes, in words.
fn missing_for_nodes(cluster: &std::path::Path) -> anyhow::Result<Option<String>> {
    let mut probe = Command::new(cluster);
    probe.arg("probe");
    let missing = output(probe)?;
    let missing: Vec<&str> = missing.lines().collect();
    Ok((!missing.is_empty()).then(|| missing.join("; ")))
}

#[derive(Default)]
struct Total {
    passed: u64,
    failed: u64,
    /// What ended with a failure.
    broken: Vec<String>,
}

impl Total {
    /// Runs tests, shows what they say and counts.
    fn add(&mut self, mut run: Command, what: &str) -> anyhow::Result<()> {
        let mut child = run
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {run:?}"))?;
        for line in BufReader::new(child.stdout.take().context("piped output")?).lines() {
            let line = line?;
            if let Some((passed, failed)) = result_line(&line) {
                self.passed += passed;
                self.failed += failed;
            }
            println!("{line}");
        }
        if !child.wait()?.success() {
            self.broken.push(what.to_owned());
        }
        Ok(())
    }
}

/// `test result: ok. 3 passed; 0 failed; …` as (3, 0).
fn result_line(line: &str) -> Option<(u64, u64)> {
    let counts = line.strip_prefix("test result: ")?.split_once(". ")?.1;
    let mut counts = counts
        .split("; ")
        .map(|count| count.split(' ').next()?.parse().ok());
    Some((counts.next()??, counts.next()??))
}

#[cfg(test)]
mod tests {
    use super::{Selection, Tier, result_line};

    #[test]
    fn tests_are_selected_by_tier_name_and_what_the_machine_has() {
        let mut selection = Selection {
            tiers: [Tier::Processes].into(),
            node: false,
            given_cluster: false,
            filter: None,
        };
        assert!(selection.wants("llmd-e2e", Tier::Processes, "sim::the_python_client_parses"));
        assert!(!selection.wants("llmd-e2e", Tier::Processes, "sim::the_node_client_parses"));
        assert!(!selection.wants("llmd-e2e", Tier::Crates, "sim::x"));
        selection.node = true;
        selection.filter = Some("parses".to_owned());
        assert!(selection.wants("llmd-e2e", Tier::Processes, "sim::the_node_client_parses"));
        assert!(!selection.wants("llmd-e2e", Tier::Processes, "sim::x"));
    }

    #[test]
    fn a_given_cluster_is_for_journeys_and_not_for_tests_of_our_nodes() {
        let mut selection = Selection {
            tiers: [Tier::Node].into(),
            node: true,
            given_cluster: false,
            filter: None,
        };
        assert!(selection.wants("llmd-e2e-cluster", Tier::Node, "node::pods::x"));
        selection.given_cluster = true;
        assert!(!selection.wants("llmd-e2e-cluster", Tier::Node, "node::pods::x"));
        assert!(!selection.wants("llmd-e2e", Tier::Node, "node::faults::x"));
        assert!(selection.wants("llmd-e2e", Tier::Node, "node::operator::x"));
    }

    #[test]
    fn the_closing_lines_of_test_binaries_are_counted() {
        let line =
            "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s";
        assert_eq!(result_line(line), Some((12, 3)));
        assert_eq!(result_line("running 3 tests"), None);
    }
}
