use k8s_openapi::jiff::SignedDuration;

use super::*;
use crate::causes::{Cause, Phase};

fn start() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn workload(name: &str, ready: i32, desired: i32) -> Workload {
    Workload {
        name: name.to_owned(),
        object: format!("a-{name}"),
        desired,
        ready,
        updated: desired,
        total: desired,
        is_observed: true,
        causes: Vec::new(),
        phase: None,
    }
}

fn facts(pools: Vec<Workload>) -> Facts {
    let units = 2;
    Facts {
        generation: 4,
        workloads: Some(Workloads {
            router: workload("router", 1, 1),
            pools,
            units,
            model: "org/model".to_owned(),
            url: Some("http://a-epp.ns.svc/v1".to_owned()),
            place: "http://a-epp.ns.svc/v1".to_owned(),
            route: None,
            selector: "x=y".to_owned(),
            discovery: "InferencePool",
            path: PathStatus::default(),
            accelerators: 8,
        }),
        ..Facts::default()
    }
}

fn condition<'a>(
    status: &'a LLMDeploymentStatus,
    kind: &str,
) -> Option<&'a k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition> {
    status.conditions.iter().find(|condition| condition.type_ == kind)
}

fn ready(status: &LLMDeploymentStatus) -> (&str, &str, &str) {
    let ready = condition(status, READY).unwrap();
    (&ready.status, &ready.reason, &ready.message)
}

#[test]
fn a_serving_deployment_says_where_and_counts_units() {
    let status = compute(
        &facts(vec![workload("prefill", 8, 8), workload("decode", 2, 2)]),
        &LLMDeploymentStatus::default(),
        start(),
    );
    assert_eq!(
        ready(&status),
        (
            "True",
            "Serving",
            "prefill 8/8, decode 2/2 at http://a-epp.ns.svc/v1"
        )
    );
    assert_eq!((status.replicas, status.observed_generation), (Some(2), Some(4)));
    assert!(condition(&status, RECONCILING).is_none() && condition(&status, STALLED).is_none());

    let half = compute(
        &facts(vec![workload("prefill", 7, 8), workload("decode", 2, 2)]),
        &status,
        start(),
    );
    assert_eq!(half.replicas, Some(1), "complete units only");
}

#[test]
fn the_cause_that_needs_somebody_comes_first_and_stalls() {
    let mut slow = workload("prefill", 0, 8);
    slow.phase = Some((Phase::PullingImage, start()));
    let mut stuck = workload("decode", 2, 8);
    stuck.causes = vec![(
        Cause {
            reason: "Unschedulable",
            message: "cannot schedule: not enough nvidia.com/gpu on any node: add nodes".to_owned(),
            is_stalled: true,
        },
        6,
    )];
    let status = compute(
        &facts(vec![slow, stuck]),
        &LLMDeploymentStatus::default(),
        start(),
    );
    assert_eq!(
        ready(&status),
        (
            "False",
            "Unschedulable",
            "decode 2/8 ready: 6 pods: cannot schedule: not enough nvidia.com/gpu on any node: add nodes"
        )
    );
    assert_eq!(condition(&status, STALLED).unwrap().reason, "Unschedulable");
    assert!(condition(&status, RECONCILING).is_none());
}

#[test]
fn times_change_with_their_condition_only_and_durations_are_coarse() {
    let mut loading = workload("decode", 0, 1);
    loading.phase = Some((Phase::Loading, start()));
    let facts = facts(vec![loading]);
    let at = |seconds| start() + SignedDuration::from_secs(seconds);
    let first = compute(&facts, &LLMDeploymentStatus::default(), at(1));
    assert_eq!(
        ready(&first).2,
        "decode 0/1 ready: loading the model for less than a minute"
    );
    let same = compute(&facts, &first, at(59));
    assert_eq!(same, first, "nothing to write");
    let later = compute(&facts, &same, at(200));
    assert_eq!(ready(&later).2, "decode 0/1 ready: loading the model for 3 min");
    let times = |status: &LLMDeploymentStatus| condition(status, READY).unwrap().last_transition_time.clone();
    assert_eq!(times(&later), times(&first));
    assert_eq!(
        ready(&compute(&facts, &later, at(14 * 60))).2,
        "decode 0/1 ready: loading the model for 10 min"
    );
}

#[test]
fn a_wrong_spec_stalls_and_keeps_what_was_known_of_the_pods() {
    let served = compute(
        &facts(vec![workload("decode", 1, 1)]),
        &LLMDeploymentStatus::default(),
        start(),
    );
    let wrong = Facts {
        generation: 5,
        invalid: vec!["spec.path: no such path".to_owned()],
        ..Facts::default()
    };
    let status = compute(&wrong, &served, start());
    assert_eq!(
        ready(&status),
        ("False", "InvalidSpec", "spec.path: no such path")
    );
    assert!(condition(&status, STALLED).is_some());
    assert_eq!((status.url, status.observed_generation), (served.url, Some(5)));
}

#[test]
fn stopped_is_ready_with_nothing_wanted() {
    let mut facts = facts(vec![workload("decode", 0, 0)]);
    facts.workloads.as_mut().unwrap().units = 0;
    let status = compute(&facts, &LLMDeploymentStatus::default(), start());
    assert_eq!(
        (ready(&status).0, ready(&status).1, status.replicas),
        ("True", "Stopped", Some(0))
    );
}

#[test]
fn a_gateway_that_has_not_answered_is_waited_for_and_one_that_refuses_is_named() {
    let mut facts = facts(vec![workload("decode", 2, 2)]);
    let mut look = |route: RouteState| {
        facts.workloads.as_mut().unwrap().route = Some(route);
        compute(&facts, &LLMDeploymentStatus::default(), start())
    };
    let status = look(RouteState::Waiting("Gateway a/b has not answered".to_owned()));
    assert_eq!(
        ready(&status),
        ("False", "WaitingForGateway", "Gateway a/b has not answered")
    );
    assert!(condition(&status, RECONCILING).is_some() && condition(&status, STALLED).is_none());

    let status = look(RouteState::Refused {
        reason: "NotAllowedByListeners".to_owned(),
        message: "Gateway a/b refuses".to_owned(),
    });
    assert_eq!(
        ready(&status),
        ("False", "NotAllowedByListeners", "Gateway a/b refuses")
    );
    assert!(condition(&status, STALLED).is_some());
    assert_eq!(condition(&status, ROUTE).unwrap().reason, "NotAllowedByListeners");

    let status = look(RouteState::Accepted);
    assert_eq!(ready(&status).0, "True");
    assert_eq!(condition(&status, ROUTE).unwrap().status, "True");
}

#[test]
fn a_look_is_due_when_the_duration_in_the_message_changes() {
    let mut pool = workload("decode", 0, 2);
    pool.phase = Some((Phase::Loading, start()));
    let due = |pool: &Workload, after: i64| {
        next_change(
            &facts(vec![pool.clone()]),
            start() + SignedDuration::from_secs(after),
        )
        .map(|pause| pause.as_secs())
    };
    assert_eq!(due(&pool, 0), Some(60));
    assert_eq!(due(&pool, 130), Some(50));
    assert_eq!(due(&pool, 700), Some(200));
    // A cause has no duration, and what is ready none either.
    pool.causes = vec![(Cause::passing("Unschedulable", "no node"), 2)];
    assert_eq!(due(&pool, 130), None);
    assert_eq!(due(&workload("decode", 2, 2), 130), None);
}
