//! Which tier a test belongs to: its package and, where it can start a cluster, the first module of its name.

use std::str::FromStr;

/// What a test needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tier {
    /// 1: nothing. Unit, property and loopback component tests.
    Crates,
    /// 2: the programs of `e2e/tools`. Journeys over real processes, and the conformance suite against our picker.
    Processes,
    /// 3: the built Kubernetes. Integration tests in a module `cluster` of packages that depend on `llmd-e2e-cluster`.
    Control,
    /// 4: and root. Tests in a module `node` of the packages in `e2e`.
    Node,
}

impl Tier {
    pub(crate) const ALL: [Self; 4] = [Self::Crates, Self::Processes, Self::Control, Self::Node];

    /// The tier of a test.
    pub(super) fn of(package: &str, integration: bool, test: &str) -> Self {
        let in_module =
            |module: &str| integration && test.split_once("::").is_some_and(|(first, _)| first == module);
        let conformance = package == "llmd-epp-conformance" && test.starts_with("llmd::");
        let end_to_end = package == "llmd-e2e" || conformance;
        if (end_to_end || package == "llmd-e2e-cluster") && in_module("node") {
            Self::Node
        } else if in_module("cluster") {
            Self::Control
        } else if end_to_end {
            Self::Processes
        } else {
            Self::Crates
        }
    }
}

impl FromStr for Tier {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "1" => Ok(Self::Crates),
            "2" => Ok(Self::Processes),
            "3" => Ok(Self::Control),
            "4" => Ok(Self::Node),
            _ => Err("there is no such tier; use 1 (crates), 2 (real processes), 3 (control plane) or 4 (real nodes)"
                .to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Tier;

    #[test]
    fn the_first_module_of_integration_tests_selects_the_tier() {
        assert_eq!(
            Tier::of("llmd-epp", true, "cluster::pool::watched"),
            Tier::Control
        );
        assert_eq!(
            Tier::of("llmd-epp", true, "datalayer::cluster::watched"),
            Tier::Crates
        );
        assert_eq!(
            Tier::of("llmd-epp", false, "cluster::tests::parsed"),
            Tier::Crates
        );
        assert_eq!(Tier::of("llmd-epp", true, "node::x"), Tier::Crates);
        assert_eq!(Tier::of("llmd-e2e", true, "node::quickstart::x"), Tier::Node);
        assert_eq!(Tier::of("llmd-e2e", true, "up::x"), Tier::Processes);
        assert_eq!(
            Tier::of("llmd-epp-conformance", false, "llmd::passes"),
            Tier::Processes
        );
        assert_eq!(
            Tier::of("llmd-epp-conformance", false, "faults::caught"),
            Tier::Crates
        );
        assert_eq!(Tier::of("llmd-e2e-cluster", true, "node::pods::x"), Tier::Node);
        assert_eq!(
            Tier::of("llmd-e2e-cluster", false, "image::tests::x"),
            Tier::Crates
        );
    }

    #[test]
    fn an_unknown_tier_is_refused() {
        assert!("5".parse::<Tier>().unwrap_err().contains("3 (control plane)"));
    }
}
