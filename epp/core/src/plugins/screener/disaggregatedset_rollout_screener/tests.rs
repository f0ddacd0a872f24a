//! Which endpoints stay, what the client is told, and what is counted.

use std::fmt::Write;

use llmd_epp_api::registry::BuildState;
use llmd_epp_api::{MetricsScope, Termination};
use serde_json::{Value, json};

use super::*;
use crate::config::{BuildEnv, EndpointPickerConfig, assemble};
use crate::plugins::testing::{Pool, build_error, build_in};

const REVISION: &str = "disaggregatedset.x-k8s.io/revision";
const ROLE: &str = "disaggregatedset.x-k8s.io/role";

fn parameters(mode: &str) -> Value {
    json!({
        "scope": {"labelSelector": "app=set"},
        "headerSelectors": [
            {"name": "revision", "headerName": "X-Disagg-Revision", "labelKey": REVISION, "mode": "strict"},
            {"name": "slice", "headerName": "x-disagg-slice", "labelKey": "slice", "mode": "prefer"},
        ],
        "revisionGating": {"mode": mode, "requireRoles": {"values": ["prefill", "decode"]}},
    })
}

/// `e0` and `e1` are revision a, `e2` and `e3` are b, `e4` is c and has no prefill.
fn pool() -> Pool {
    let pods = [
        ("a", "prefill"),
        ("a", "decode"),
        ("b", "prefill"),
        ("b", "decode"),
        ("c", "decode"),
    ];
    pods.iter()
        .enumerate()
        .fold(Pool::of(5), |pool, (index, (revision, role))| {
            pool.label(index, "app", "set")
                .label(index, REVISION, revision)
                .label(index, ROLE, role)
        })
}

struct World {
    plugin: Plugin,
    registry: prometheus::Registry,
}

fn world(mode: &str) -> World {
    let registry = prometheus::Registry::new();
    let mut state = BuildState::new(MetricsScope::new(registry.clone(), true));
    let plugin = build_in(&mut state, &PLUGIN, &parameters(mode)).unwrap();
    World { plugin, registry }
}

impl World {
    fn kept(&self, pool: &Pool, random: &Random) -> Vec<u32> {
        let candidates: Vec<u32> = (0..pool.snapshot.len() as u32).collect();
        let mut kept = vec![true; candidates.len()];
        let screener = self.plugin.screener.as_ref().unwrap();
        pool.cycle(|cycle| screener.screen(cycle, &candidates, random, &mut kept));
        let stay = candidates.into_iter().zip(kept);
        stay.filter_map(|(candidate, kept)| kept.then_some(candidate))
            .collect()
    }

    fn page(&self) -> String {
        let mut text = String::new();
        for family in self.registry.gather() {
            for metric in family.get_metric() {
                let labels = metric.get_label().iter();
                let labels: Vec<&str> = labels.map(prometheus::proto::LabelPair::value).collect();
                let value = metric.get_counter().get_value() + metric.get_gauge().get_value();
                let _ = writeln!(text, "{} {} {value}", family.name(), labels.join(" "));
            }
        }
        text
    }
}

#[test]
fn a_request_stays_on_one_complete_revision() {
    for mode in ["sum", "max-role"] {
        let (world, pool, random) = (world(mode), pool(), Random::seeded(7));
        let mut drawn = [0; 2];
        for _ in 0..200 {
            match world.kept(&pool, &random)[..] {
                [0, 1] => drawn[0] += 1,
                [2, 3] => drawn[1] += 1,
                ref other => panic!("{other:?}"),
            }
        }
        assert!(drawn.iter().all(|drawn| (60..=140).contains(drawn)), "{drawn:?}");
    }
}

#[test]
fn a_strict_header_takes_the_place_of_the_draw() {
    let (world, mut pool, random) = (world("sum"), pool(), Random::seeded(7));
    pool.request.headers.push("x-disagg-revision", b"b");
    for _ in 0..20 {
        assert_eq!(world.kept(&pool, &random), [2, 3]);
    }
    // The soft one takes nothing out.
    pool.request.headers.push("x-disagg-slice", b"7");
    assert_eq!(world.kept(&pool, &random), [2, 3]);
}

#[test]
fn nothing_stays_of_an_incomplete_or_unknown_revision() {
    for (revision, no_match) in [("c", false), ("d", true)] {
        let (world, mut pool) = (world("sum"), pool());
        pool.request
            .headers
            .push("x-disagg-revision", revision.as_bytes());
        assert_eq!(world.kept(&pool, &Random::seeded(7)), [0_u32; 0]);
        let line =
            format!("llm_d_epp_disaggregatedset_strict_header_no_match_total {TYPE} {TYPE} revision 1");
        assert_eq!(world.page().contains(&line), no_match, "{}", world.page());
    }
    let alone = Pool::of(1)
        .label(0, "app", "set")
        .label(0, REVISION, "a")
        .label(0, ROLE, "decode");
    assert_eq!(world("sum").kept(&alone, &Random::seeded(7)), [0_u32; 0]);
}

#[test]
fn without_gating_only_strict_headers_take_endpoints_out() {
    let (world, mut pool, random) = (world("disabled"), pool(), Random::seeded(7));
    assert_eq!(world.kept(&pool, &random), [0, 1, 2, 3, 4]);
    pool.request.headers.push("x-disagg-revision", b"c");
    assert_eq!(world.kept(&pool, &random), [4]);
}

#[test]
fn shares_are_shown_until_their_revision_is_gone() {
    let (world, random) = (world("max-role"), Random::seeded(7));
    world.kept(&pool(), &random);
    let share = |revision: &str| format!("gating_share max-role {TYPE} {TYPE} {revision}");
    let page = world.page();
    for (revision, value) in [("a", "0.5"), ("b", "0.5"), ("c", "0")] {
        assert!(page.contains(&format!("{} {value}", share(revision))), "{page}");
    }
    world.kept(&pool().label(4, REVISION, "b"), &random);
    let page = world.page();
    assert!(!page.contains(&share("c")), "{page}");
    assert!(page.contains(&format!("{} 0.6666", share("b"))), "{page}");
}

#[test]
fn the_client_is_told_what_was_chosen_and_a_scheduler_answers_503() {
    let config = json!({
        "apiVersion": "llm-d.ai/v1alpha1",
        "kind": "EndpointPickerConfig",
        "plugins": [{"type": TYPE, "parameters": parameters("sum")}, {"type": "random-picker"}],
        "schedulingProfiles": [{"name": "default", "plugins": [{"pluginRef": "random-picker"}]}],
    });
    let decoded = EndpointPickerConfig::decode(&config.to_string()).unwrap();
    let env = BuildEnv {
        allow_experimental: true,
        ..BuildEnv::detached()
    };
    let scheduler = assemble(&decoded.config, env).unwrap().scheduler;
    let mut pool = pool().label(2, "slice", "4").label(3, "slice", "4");
    pool.request.headers.push("x-disagg-revision", b"b");
    let schedule = |pool: &Pool| scheduler.schedule(pool.now, &pool.request, &pool.snapshot, None);
    let mut decision = schedule(&pool).unwrap();
    assert_eq!(
        decision.on_headers(&ResponseHead::new(200, None)),
        [
            ("x-disagg-revision".into(), "b".to_owned()),
            ("x-disagg-slice".into(), "4".to_owned()),
        ]
    );
    decision.on_aborted(pool.now, Termination::ClientDisconnect);

    pool.request = crate::plugins::testing::request("hello");
    pool.request.headers.push("x-disagg-revision", b"c");
    let rejection = schedule(&pool).unwrap_err();
    assert_eq!(
        rejection.body(),
        "inference error: ServiceUnavailable - screeners eliminated all endpoint candidates"
    );
}

#[test]
fn wrong_parameters_are_named() {
    let with = |pointer: &str, value: Value| {
        let mut parameters = parameters("sum");
        *parameters.pointer_mut(pointer).unwrap() = value;
        build_error(&PLUGIN, parameters)
    };
    for (pointer, value, part) in [
        (
            "/scope/labelSelector",
            json!(""),
            "parameters.scope.labelSelector: must not be empty",
        ),
        (
            "/scope/labelSelector",
            json!("a b"),
            "parameters.scope.labelSelector: 'a b'",
        ),
        ("/headerSelectors/1/name", json!(" "), "headerSelectors[1].name"),
        (
            "/headerSelectors/0/mode",
            json!("hard"),
            "headerSelectors[0].mode",
        ),
        (
            "/revisionGating",
            Value::Null,
            "parameters.revisionGating: is required",
        ),
        ("/revisionGating/mode", json!("max"), "revisionGating.mode"),
        (
            "/revisionGating/requireRoles/values",
            json!([]),
            "requireRoles.values: must name",
        ),
    ] {
        let error = with(pointer, value);
        assert!(error.contains(part), "{pointer}: {error}");
    }
    assert!(build_error(&PLUGIN, Value::Null).contains("scope.labelSelector"));
}
