//! Groups of a LeaderWorkerSet: pods that are one engine take requests together or not at all.
//!
//! A worker is Ready for as long as its own probe says so, also while its leader goes: its pod is deleted only when the
//! leader's is gone. Source of the labels: kubernetes-sigs/lws v0.9, `api/leaderworkerset/v1`.

use std::collections::BTreeSet;

use super::pods::PodFacts;

/// The same for all pods of a group.
const GROUP: &str = "leaderworkerset.sigs.k8s.io/group-key";
/// 0 for the leader.
const INDEX: &str = "leaderworkerset.sigs.k8s.io/worker-index";

/// The group of a pod.
pub(super) fn of(pod: &PodFacts) -> Option<&str> {
    pod.labels.get(GROUP).map(String::as_str)
}

/// Groups with a pod that takes no requests, or without a leader. Pods that the pool does not select are not known:
/// where only leaders serve, they stand for their groups.
pub(super) fn broken<'a>(pods: impl Iterator<Item = &'a PodFacts>) -> BTreeSet<&'a str> {
    let mut broken = BTreeSet::new();
    let (mut all, mut led) = (BTreeSet::new(), BTreeSet::new());
    for pod in pods {
        let Some(group) = of(pod) else {
            continue;
        };
        all.insert(group);
        if pod.labels.get(INDEX).is_some_and(|index| index == "0") {
            led.insert(group);
        }
        if pod.address.is_none() {
            broken.insert(group);
        }
    }
    broken.extend(all.difference(&led));
    broken
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    /// Group, index, and whether the pod takes requests.
    fn pod(member: Option<(&str, &str)>, is_ready: bool) -> PodFacts {
        let labels = member.map(|(group, index)| {
            [(GROUP, group), (INDEX, index)].map(|(key, value)| (key.to_owned(), value.to_owned()))
        });
        PodFacts {
            name: "p".into(),
            labels: labels.map(BTreeMap::from).unwrap_or_default(),
            address: is_ready.then_some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            node: None,
            active_ports: None,
        }
    }

    #[test]
    fn a_group_is_whole_or_out() {
        let alone = pod(None, false);
        let whole = [pod(Some(("a", "0")), true), pod(Some(("a", "1")), true)];
        let leader_goes = [pod(Some(("b", "0")), false), pod(Some(("b", "1")), true)];
        let worker_starts = [pod(Some(("c", "0")), true), pod(Some(("c", "1")), false)];
        let leader_is_gone = [pod(Some(("d", "1")), true)];
        let leader_serves_alone = [pod(Some(("e", "0")), true)];
        let pods = [&alone].into_iter();
        let pods = pods.chain(&whole).chain(&leader_goes).chain(&worker_starts);
        let pods = pods.chain(&leader_is_gone).chain(&leader_serves_alone);
        assert_eq!(broken(pods), BTreeSet::from(["b", "c", "d"]));
    }
}
