//! Engines of several pods on real nodes, with the real controller of groups and of sets of roles.

use std::collections::{BTreeMap, BTreeSet};

use llmd_e2e::poll::DEADLINE;
use llmd_e2e_cluster::{Namespace, poll_until, poll_within};
use serde_json::Value;

use super::kills::kill;
use super::{FOREIGN, Load, decoded, metric_of, ready, words};

/// One prefill and two decode groups of two pods with two ranks each.
const WIDE: &str = "
apiVersion: llmd.dev/v1alpha1
kind: LLMDeployment
metadata: {name: pd}
spec:
  path: wide-expert-parallel
  model: {name: test/model}
  engine: {type: Simulator, args: {startup-duration: 2s}}
  security: {podSecurity: Restricted}
  rollout: {drain: 5s}
  pools:
    - &small
      name: prefill
      parallelism: {data: 4, dataLocal: 2}
      accelerator: {vendor: None}
      resources:
        requests: {cpu: 10m, memory: 64Mi, ephemeral-storage: 0}
        limits: {memory: 256Mi, ephemeral-storage: 0}
    - {<<: *small, name: decode, replicas: 2}
";
const RANKS: u16 = 2;

/// Pods of a role: name, group, whether it is ready, and its identity.
async fn members(namespace: &Namespace, role: &str) -> Vec<(String, String, bool, String)> {
    let label = format!("-lllm-d.ai/role={role}");
    let said = namespace.kubectl(["get", "pods", &label, "-ojson"]).await;
    let said: Value = serde_json::from_str(&said.unwrap_or_default()).unwrap_or_default();
    let pods = said["items"].as_array().cloned().unwrap_or_default();
    let member = |pod: &Value| {
        let text = |pointer: &str| {
            pod.pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let conditions = pod["status"]["conditions"].as_array();
        let is_ready = conditions
            .into_iter()
            .flatten()
            .any(|one| one["type"] == "Ready" && one["status"] == "True");
        let is_leaving = pod["metadata"]["deletionTimestamp"].is_string();
        (
            text("/metadata/name"),
            text("/metadata/labels/leaderworkerset.sigs.k8s.io~1group-index"),
            is_ready && !is_leaving,
            text("/metadata/uid"),
        )
    };
    pods.iter().map(member).collect()
}

/// Ranks of a role that computed tokens, as pod and port.
async fn busy(namespace: &Namespace, role: &str, first: u16, metric: &str) -> BTreeSet<(String, u16)> {
    let mut busy = BTreeSet::new();
    for (pod, ..) in members(namespace, role).await {
        for port in first..first + RANKS {
            if metric_of(namespace, &pod, port, metric).await > 0.0 {
                busy.insert((pod.clone(), port));
            }
        }
    }
    busy
}

#[tokio::test(flavor = "multi_thread")]
async fn every_rank_works_and_a_killed_worker_takes_its_group_only() {
    let namespace = FOREIGN.get().await.namespace().await.unwrap();
    let address = ready(&namespace, WIDE).await;
    let load = Load::start(address);
    let all_work = || async {
        let decode = busy(&namespace, "decode", 8200, "vllm:generation_tokens_total").await;
        let prefill = busy(&namespace, "prefill", 8000, "vllm:prompt_tokens_total").await;
        (decode.len() == 8 && prefill.len() == 4).then_some(())
    };
    poll_until("tokens of every rank", all_work).await.unwrap();
    load.finish().await;

    let before = members(&namespace, "decode").await;
    let of_group = |group: &str| -> BTreeMap<String, String> {
        let all = before.iter().filter(|(_, of, ..)| of == group);
        all.map(|(name, _, _, uid)| (name.clone(), uid.clone())).collect()
    };
    let (killed, spared) = (of_group("0"), of_group("1"));
    assert_eq!((killed.len(), spared.len()), (2, 2), "{before:?}");
    let worker = killed
        .keys()
        .find(|name| name.ends_with("-0-1"))
        .expect("a worker");
    kill(&namespace, worker, &["modelserver"]).await;
    poll_until("the group without the pods that it had", || async {
        let now = members(&namespace, "decode").await;
        let is_old = |(_, _, ready, uid): &(String, String, bool, String)| {
            *ready && killed.values().any(|old| old == uid)
        };
        (!now.iter().any(is_old)).then_some(())
    })
    .await
    .unwrap();
    let load = Load::start(address);
    poll_within("the group again", 2 * DEADLINE, || async {
        // asked before it is looked whether the group is still away
        let engines = load.engines();
        let now = members(&namespace, "decode").await;
        let back = now
            .iter()
            .filter(|(_, group, ready, _)| group == "0" && *ready)
            .count();
        if back == 2 {
            return Some(());
        }
        if back == 0 {
            assert!(
                engines.iter().all(|engine| spared.contains_key(engine)),
                "{engines:?} while {now:?}"
            );
        }
        None
    })
    .await
    .unwrap();
    let after = members(&namespace, "decode").await;
    for (name, group, _, uid) in &after {
        let of = if group == "0" { &killed } else { &spared };
        assert_eq!(
            of.get(name) == Some(uid),
            group == "1",
            "{name} of group {group}: {after:?}"
        );
    }
    poll_until("tokens of every rank again", all_work).await.unwrap();
    load.finish().await;
}

/// The other controller moves both roles; ours only says what it should be.
#[tokio::test(flavor = "multi_thread")]
async fn a_disaggregated_set_moves_both_roles_under_load() {
    let namespace = FOREIGN.get().await.namespace().await.unwrap();
    let resource = WIDE
        .replace("rollout: {", "rollout: {strategy: DisaggregatedSet, ")
        .replace("name: prefill\n", "name: prefill\n      replicas: 2\n");
    let address = ready(&namespace, &resource).await;
    let label = "-ojsonpath={.items[*].metadata.labels['llmd\\.dev/revision']}";
    let revisions = || async { words(&namespace, &["get", "pods", "-lllmd.dev/pool", label]).await };
    let before = revisions().await;
    let load = Load::start(address);
    let edit = r#"{"spec":{"engine":{"args":{"seed":"7"}}}}"#;
    namespace
        .kubectl(["patch", "llmd/pd", "--type=merge", "-p", edit])
        .await
        .unwrap();
    poll_within(
        "all pods of both roles of the new revision",
        3 * DEADLINE,
        || async {
            let now = revisions().await;
            let is_new = now.len() == 8 && now.iter().all(|one| *one == now[0] && !before.contains(one));
            is_new.then_some(())
        },
    )
    .await
    .unwrap();
    let asked = load.sent();
    poll_until("answers of the new revision", || async {
        (load.sent() > asked + 20).then_some(())
    })
    .await
    .unwrap();
    let mixed = decoded(&namespace, "llmd_sim_revision_mismatches_total").await;
    assert!(mixed.abs() < 0.5, "{mixed} pairs of different revision");
    load.finish().await;
}
