//! Which prefill endpoint goes with which decode endpoint, as Envoy is told.

use std::collections::BTreeMap;

use crate::picker::{CHAT, Picker, Setup};

/// Endpoint `192.168.1.n` is the `n`th of these: role, revision, host.
const REVISIONS: &[&[(&str, &str)]] = &[
    &[("llm-d.ai/role", "decode"), ("revision", "old")],
    &[("llm-d.ai/role", "decode"), ("revision", "new")],
    &[("llm-d.ai/role", "prefill"), ("revision", "old")],
    &[("llm-d.ai/role", "prefill"), ("revision", "new")],
    // Nobody decodes this one.
    &[("llm-d.ai/role", "prefill"), ("revision", "half")],
];
const HOSTS: &[&[(&str, &str)]] = &[
    &[("llm-d.ai/role", "decode"), ("kubernetes.io/hostname", "a")],
    &[("llm-d.ai/role", "decode"), ("kubernetes.io/hostname", "b")],
    &[("llm-d.ai/role", "prefill"), ("kubernetes.io/hostname", "b")],
];

/// How often each pair of (decode, prefill) was told in `requests` requests.
async fn pairs(
    config: &'static str,
    labels: &'static [&'static [(&'static str, &'static str)]],
    requests: u32,
) -> BTreeMap<(String, String), u32> {
    let picker = Picker::start(Setup {
        endpoints: u8::try_from(labels.len()).expect("few"),
        config,
        labels,
        ..Setup::default()
    })
    .await;
    let mut pairs = BTreeMap::new();
    for _ in 0..requests {
        let mut call = picker.open().await;
        call.request(&[], &[CHAT]).await;
        let forwarded = call.forwarded().await;
        let header = |name: &str| forwarded.set(name).expect("both are told");
        let pair = (
            header("x-gateway-destination-endpoint"),
            header("x-prefiller-host-port"),
        );
        *pairs.entry(pair).or_default() += 1;
    }
    pairs
}

fn told(decode: u8, prefill: u8) -> (String, String) {
    (
        format!("192.168.1.{decode}:8000"),
        format!("192.168.1.{prefill}:8000"),
    )
}

#[tokio::test]
async fn both_halves_of_a_pair_are_of_one_revision() {
    let config = "
plugins:
- {type: decode-filter}
- {type: prefill-filter}
- {type: always-disagg-pd-decider}
- {type: disagg-profile-handler, parameters: {jointCandidates: 8, deciders: {prefill: always-disagg-pd-decider}}}
- type: disaggregatedset-rollout-screener
  parameters:
    scope: {labelSelector: llm-d.ai/role}
    revisionGating: {mode: sum, requireRoles: {values: [decode, prefill]}, revisionLabelKey: revision, roleLabelKey: llm-d.ai/role}
schedulingProfiles:
- {name: prefill, plugins: [{pluginRef: prefill-filter}]}
- {name: decode, plugins: [{pluginRef: decode-filter}]}
";
    let pairs = pairs(config, REVISIONS, 60).await;
    let seen: Vec<_> = pairs.keys().cloned().collect();
    assert_eq!(seen, [told(1, 3), told(2, 4)], "{pairs:?}");
}

#[tokio::test]
async fn a_joint_choice_takes_the_decode_engine_beside_a_prefill_engine() {
    let config = "
plugins:
- {type: decode-filter}
- {type: prefill-filter}
- {type: topology-extractor}
- {type: topology-affinity-scorer}
- {type: always-disagg-pd-decider}
- {type: disagg-profile-handler, parameters: {jointCandidates: 8, deciders: {prefill: always-disagg-pd-decider}}}
schedulingProfiles:
- {name: prefill, plugins: [{pluginRef: prefill-filter}, {pluginRef: topology-affinity-scorer}]}
- {name: decode, plugins: [{pluginRef: decode-filter}]}
";
    assert_eq!(pairs(config, HOSTS, 40).await, BTreeMap::from([(told(2, 3), 40)]));
}
