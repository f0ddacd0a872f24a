//! Groups of pods of which only some are there: their engine does nothing, whatever the pods say.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;

use super::Workload;
use crate::causes::{Cause, is_ready};

/// Adds the cause that a ready pod waits for others of its group, which nothing about the ready pod tells.
pub(crate) fn incomplete_groups(seen: &mut Workload, nodes: i32, pods: &[&Pod]) {
    if nodes < 2 || seen.ready >= seen.desired {
        return;
    }
    let mut ready: BTreeMap<&str, i32> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| is_ready(pod)) {
        if let Some(group) = group(&seen.object, pod) {
            *ready.entry(group).or_default() += 1;
        }
    }
    let half = ready.values().filter(|count| **count < nodes).count();
    if half > 0 {
        let message = format!(
            "groups have ready pods but fewer than their {nodes}, and serve only when all are: see `kubectl get pods -l \
             leaderworkerset.sigs.k8s.io/name={}`",
            seen.object
        );
        seen.causes
            .push((Cause::passing("GroupIncomplete", message), half));
    }
}

/// Of `<set>-<group>` and `<set>-<group>-<worker>`.
fn group<'a>(set: &str, pod: &'a Pod) -> Option<&'a str> {
    let rest = pod
        .metadata
        .name
        .as_deref()?
        .strip_prefix(set)?
        .strip_prefix('-')?;
    rest.split('-').next()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, ready: &str) -> Pod {
        let pod = json!({"metadata": {"name": name}, "status": {"conditions": [{"type": "Ready", "status": ready}]}});
        serde_json::from_value(pod).unwrap()
    }

    fn causes(pods: &[Pod], ready: i32) -> Vec<(Cause, usize)> {
        let mut seen = crate::observe::workload("decode", "x-decode", 2, None, &[]);
        seen.ready = ready;
        incomplete_groups(&mut seen, 2, &pods.iter().collect::<Vec<_>>());
        seen.causes
    }

    #[test]
    fn a_group_with_one_ready_pod_of_two_is_told() {
        let whole = [pod("x-decode-0", "True"), pod("x-decode-0-1", "True")];
        let half = [pod("x-decode-1", "True"), pod("x-decode-1-1", "False")];
        assert!(causes(&whole, 1).is_empty());
        let both = [whole.clone(), half.clone()].concat();
        let told = causes(&both, 1);
        assert_eq!((told[0].0.reason, told[0].1), ("GroupIncomplete", 1));
        assert!(told[0].0.message.contains("all"), "{}", told[0].0.message);
        assert!(causes(&both, 2).is_empty(), "all groups are ready");
    }
}
