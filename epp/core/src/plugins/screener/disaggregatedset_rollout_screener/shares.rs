//! How traffic is shared among the revisions of a rollout.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use llmd_epp_api::{Endpoint, Snapshot};

use super::selector::Selector;

/// How much traffic a revision gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    /// By its pods of all required roles.
    Sum,
    /// By its pods of the role that has the most pods in all revisions.
    MaxRole,
}

/// What decides about a revision.
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) weight: Weight,
    /// Roles of which a revision needs a pod each; the first one wins a tie.
    pub(super) roles: Vec<String>,
    pub(super) revision_key: String,
    pub(super) role_key: String,
}

/// A revision and its share of the requests.
#[derive(Debug, PartialEq)]
pub(super) struct Revision {
    pub(super) name: Arc<str>,
    /// 0 when a role is missing, else above 0; all shares add up to 1.
    pub(super) share: f64,
}

/// The revisions of one set of endpoints.
#[derive(Debug, Default)]
pub(super) struct Shares {
    /// By name.
    pub(super) revisions: Vec<Revision>,
    /// Index of each endpoint's revision, by snapshot index.
    of: Vec<Option<usize>>,
}

impl Shares {
    /// Counts the pods that `scope` selects; a pod with several ports counts once.
    pub(super) fn new(gate: &Gate, scope: &Selector, snapshot: &Snapshot) -> Self {
        let mut pods: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        let mut seen = HashSet::new();
        for endpoint in &snapshot.endpoints {
            let Some(revision) = gate.revision_of(endpoint) else {
                continue;
            };
            let counts = pods.entry(revision).or_insert_with(|| vec![0; gate.roles.len()]);
            let role = endpoint.label(&gate.role_key);
            let role = role.and_then(|role| gate.roles.iter().position(|required| required == role));
            let (spec, namespace) = (endpoint.spec(), &endpoint.name().namespace);
            if let Some(role) = role
                && scope.matches(&spec.labels)
                && seen.insert((namespace, &spec.pod))
            {
                counts[role] += 1;
            }
        }
        let weights = gate.weights(&pods);
        let total: u32 = weights.iter().sum();
        let revisions: Vec<Revision> = pods
            .keys()
            .zip(weights)
            .map(|(name, weight)| Revision {
                name: (*name).into(),
                share: f64::from(weight) / f64::from(total.max(1)),
            })
            .collect();
        let place = |endpoint: &Arc<Endpoint>| {
            let name = gate.revision_of(endpoint)?;
            revisions.iter().position(|revision| &*revision.name == name)
        };
        let of = snapshot.endpoints.iter().map(place).collect();
        Self { revisions, of }
    }

    /// Whether the endpoint is one of this revision.
    pub(super) fn is_of(&self, endpoint: u32, revision: usize) -> bool {
        self.of[endpoint as usize] == Some(revision)
    }

    /// A complete revision by its name.
    pub(super) fn complete(&self, name: &str) -> Option<usize> {
        let mut revisions = self.revisions.iter();
        revisions.position(|revision| &*revision.name == name && revision.share > 0.0)
    }

    /// Draws with `fraction` (0..1) among the complete revisions that have one of the candidates.
    pub(super) fn draw(&self, candidates: &[u32], fraction: f64) -> Option<usize> {
        let is_there = |revision: usize| {
            candidates
                .iter()
                .any(|candidate| self.is_of(*candidate, revision))
        };
        let revisions = || {
            let shares = self.revisions.iter().enumerate();
            shares.filter(|(index, revision)| revision.share > 0.0 && is_there(*index))
        };
        let mut left = fraction * revisions().map(|(_, revision)| revision.share).sum::<f64>();
        let mut drawn = None;
        for (index, revision) in revisions() {
            drawn = Some(index);
            if left < revision.share {
                break;
            }
            left -= revision.share;
        }
        drawn
    }
}

impl Gate {
    fn revision_of<'a>(&self, endpoint: &'a Endpoint) -> Option<&'a str> {
        endpoint
            .label(&self.revision_key)
            .filter(|revision| !revision.is_empty())
    }

    /// The weight of each revision by its pods per required role; 0 when a role is missing.
    fn weights(&self, pods: &BTreeMap<&str, Vec<u32>>) -> Vec<u32> {
        let is_complete = |counts: &&Vec<u32>| counts.iter().all(|count| *count > 0);
        let total =
            |role: usize| -> u32 { pods.values().filter(is_complete).map(|counts| counts[role]).sum() };
        let mut largest = 0;
        for role in 1..self.roles.len() {
            if total(role) > total(largest) {
                largest = role;
            }
        }
        pods.values()
            .map(|counts| match self.weight {
                _ if !is_complete(&counts) => 0,
                Weight::Sum => counts.iter().sum(),
                Weight::MaxRole => counts[largest],
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::Pool;

    fn gate(weight: Weight) -> Gate {
        Gate {
            weight,
            roles: vec!["prefill".into(), "decode".into()],
            revision_key: "revision".into(),
            role_key: "role".into(),
        }
    }

    /// Endpoints of (revision, role, pods).
    fn pool(groups: &[(&str, &str, usize)]) -> Pool {
        let pods: Vec<(&str, &str)> = groups
            .iter()
            .flat_map(|(revision, role, pods)| vec![(*revision, *role); *pods])
            .collect();
        let empty = Pool::of(pods.len());
        let labelled = pods.into_iter().enumerate();
        labelled.fold(empty, |pool, (index, (revision, role))| {
            pool.label(index, "revision", revision).label(index, "role", role)
        })
    }

    fn shares(weight: Weight, scope: &str, pool: &Pool) -> Vec<(String, f64)> {
        let scope = Selector::parse(scope).unwrap();
        let shares = Shares::new(&gate(weight), &scope, &pool.snapshot);
        let revisions = shares.revisions.into_iter();
        revisions
            .map(|revision| (revision.name.to_string(), revision.share))
            .collect()
    }

    #[test]
    fn the_two_weights_share_upstreams_example_as_it_does() {
        let rollout = pool(&[
            ("a", "prefill", 2),
            ("a", "decode", 9),
            ("b", "prefill", 1),
            ("b", "decode", 1),
        ]);
        let by_sum = shares(Weight::Sum, "revision", &rollout);
        assert_eq!(by_sum, [("a".into(), 11.0 / 13.0), ("b".into(), 2.0 / 13.0)]);
        let by_role = shares(Weight::MaxRole, "revision", &rollout);
        assert_eq!(by_role, [("a".into(), 0.9), ("b".into(), 0.1)]);
        // A tie: the first required role counts.
        let tie = pool(&[
            ("a", "prefill", 3),
            ("a", "decode", 1),
            ("b", "prefill", 1),
            ("b", "decode", 3),
        ]);
        let by_role = shares(Weight::MaxRole, "revision", &tie);
        assert_eq!(by_role, [("a".into(), 0.75), ("b".into(), 0.25)]);
    }

    #[test]
    fn a_revision_without_a_role_gets_nothing_and_does_not_count() {
        let rollout = pool(&[("a", "prefill", 1), ("a", "decode", 1), ("b", "decode", 7)]);
        for weight in [Weight::Sum, Weight::MaxRole] {
            let shares = shares(weight, "revision", &rollout);
            assert_eq!(shares, [("a".into(), 1.0), ("b".into(), 0.0)]);
        }
        let outside = pool(&[("a", "prefill", 1), ("a", "decode", 1)]);
        assert_eq!(shares(Weight::Sum, "role=prefill", &outside), [("a".into(), 0.0)]);
    }

    #[test]
    fn a_draw_follows_the_shares_of_those_that_have_candidates() {
        let rollout = pool(&[
            ("a", "prefill", 1),
            ("a", "decode", 3),
            ("b", "prefill", 1),
            ("b", "decode", 1),
            ("c", "decode", 1),
        ]);
        let all: Vec<u32> = (0..7).collect();
        let scope = Selector::parse("revision").unwrap();
        let shares = Shares::new(&gate(Weight::MaxRole), &scope, &rollout.snapshot);
        assert_eq!(shares.draw(&all, 0.0), Some(0));
        assert_eq!(shares.draw(&all, 0.749), Some(0));
        assert_eq!(shares.draw(&all, 0.751), Some(1));
        assert_eq!(shares.draw(&all, 0.999_999), Some(1));
        assert_eq!(shares.draw(&[4, 5], 0.0), Some(1));
        assert_eq!(shares.draw(&[6], 0.0), None);
        assert_eq!(
            (shares.complete("b"), shares.complete("c"), shares.complete("d")),
            (Some(1), None, None)
        );
    }
}
