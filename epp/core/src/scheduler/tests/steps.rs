//! The extension points around a pick.

use llmd_epp_api::{Metadata, MetadataValue, RequestChanges, ResponseHead, Termination};

use super::*;
use crate::exchange::{Held, Select};

/// Serves every extension point; what it does is in its fields.
#[derive(Clone, Default)]
struct Probe {
    /// Endpoints that it screens out.
    screened: Vec<u32>,
    refuses: bool,
    rejects: Option<ErrorCode>,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Probe {
    fn saw(&self, what: impl Into<String>) {
        self.seen.lock().unwrap().push(what.into());
    }
}

impl RequestHeaderProcessor for Probe {
    fn process(&self, request: &mut InferenceRequest) -> Result<(), Rejection> {
        request.objective.fairness_id = "from-a-plugin".into();
        Ok(())
    }
}

impl Screener for Probe {
    fn screen(&self, _: &Cycle<'_>, candidates: &[u32], _: &Random, kept: &mut [bool]) {
        self.saw(format!("screen {}", candidates.len()));
        for (candidate, kept) in candidates.iter().zip(kept) {
            *kept &= !self.screened.contains(candidate);
        }
    }
}

impl Admitter for Probe {
    fn refuse(&self, _: &Cycle<'_>, candidates: &[u32], _: &Random) -> Option<String> {
        self.saw(format!("admit {}", candidates.len()));
        self.refuses.then(|| "not today".to_owned())
    }
}

impl PreRequest for Probe {
    fn pre_request(
        &self,
        _: &Cycle<'_>,
        _: SchedulingResult<'_>,
        changes: &mut RequestChanges,
    ) -> Result<(), Rejection> {
        changes.set_headers.push(("x-set".into(), "1".to_owned()));
        changes.remove_headers.push("x-removed".into());
        changes.destination = Some("10.9.9.9:1".into());
        changes.hooks.push(Box::new(Hook(self.clone())));
        self.rejects
            .map_or(Ok(()), |code| Err(Rejection::new(code, "no")))
    }
}

struct Hook(Probe);

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

impl ResponseHook for Hook {
    fn on_headers(&mut self, head: &ResponseHead<'_>, set: &mut Vec<(Arc<str>, String)>) {
        let served = head.served.unwrap_or_default();
        set.push((
            "x-served".into(),
            format!("{served} {:?}", (head.header)("x-engine")),
        ));
    }

    fn on_first_chunk(&mut self, _: Instant) {
        self.0.saw("first");
    }

    fn on_chunk(&mut self, _: Instant, bytes: usize) {
        self.0.saw(format!("chunk {bytes}"));
    }

    fn on_complete(&mut self, _: Instant, end: &ResponseEnd, metadata: &mut Vec<Metadata>) {
        metadata.push(Metadata {
            namespace: "envoy.lb".into(),
            key: "tokens".into(),
            value: MetadataValue::Number(end.usage.completion as f64),
        });
    }

    fn on_aborted(&mut self, _: Instant, cause: Termination) {
        self.0.saw(format!("{cause:?}"));
    }
}

fn with(probes: &[Probe]) -> Scheduler {
    let mut scheduler = default_scheduler(BuildEnv::detached());
    for (number, probe) in probes.iter().enumerate() {
        let name = TypedName {
            plugin_type: "probe",
            name: format!("probe-{number}").into(),
        };
        let timer = |point| scheduler.metrics.timer(point, &name);
        let timers = [
            timer("RequestHeader"),
            timer("Screener"),
            timer("Admission"),
            timer("PreRequest"),
        ];
        let [header, screener, admission, pre_request] = timers;
        let probe = Arc::new(probe.clone());
        scheduler.header_processors.push((header, probe.clone()));
        scheduler.screeners.push((screener, probe.clone()));
        scheduler.admitters.push((admission, probe.clone()));
        scheduler.pre_requests.push(((pre_request, name), probe));
    }
    scheduler
}

fn decide(scheduler: &Scheduler, pool: &Pool) -> Result<Decision, Rejection> {
    scheduler.schedule(pool.now, &pool.request, &pool.snapshot, None)
}

#[test]
fn screeners_see_the_same_and_what_nobody_takes_out_stays() {
    let pool = Pool::of(3);
    let (first, second) = (
        Probe {
            screened: vec![0],
            ..Probe::default()
        },
        Probe {
            screened: vec![2],
            ..Probe::default()
        },
    );
    let scheduler = with(&[first.clone(), second.clone()]);
    assert_eq!(name(&decide(&scheduler, &pool).unwrap()), "e1");
    assert_eq!(*first.seen.lock().unwrap(), ["screen 3", "admit 1"]);
    assert_eq!(*second.seen.lock().unwrap(), ["screen 3", "admit 1"]);

    let all = Probe {
        screened: vec![1],
        ..Probe::default()
    };
    let rejection = decide(&with(&[first, second, all]), &pool).unwrap_err();
    assert_eq!(
        (rejection.code.http_status(), rejection.message.as_str()),
        (503, "screeners eliminated all endpoint candidates")
    );
    assert_eq!(rejection.reason, Some(RejectReason::NoEndpoints));
}

#[test]
fn an_admitter_s_refusal_books_nothing() {
    let pool = Pool::of(2);
    let refusing = Probe {
        refuses: true,
        ..Probe::default()
    };
    let rejection = decide(&with(&[refusing]), &pool).unwrap_err();
    assert_eq!(
        rejection.body(),
        "inference error: ResourceExhausted - request cannot be admitted: not today"
    );
    assert_eq!(rejection.reason, Some(RejectReason::Saturated));
    assert_eq!(requests(&pool), [0, 0]);
}

#[test]
fn one_rejection_after_the_pick_is_answered_as_it_is_and_several_as_one() {
    let pool = Pool::of(1);
    let rejecting = |code| Probe {
        rejects: Some(code),
        ..Probe::default()
    };
    let one = decide(&with(&[Probe::default(), rejecting(ErrorCode::NotFound)]), &pool).unwrap_err();
    assert_eq!(one.body(), "inference error: NotFound - no");
    let both = [rejecting(ErrorCode::NotFound), rejecting(ErrorCode::Forbidden)];
    let several = decide(&with(&both), &pool).unwrap_err();
    assert_eq!(
        several.message,
        "PreRequest \"probe-0/probe\" failed: no\nPreRequest \"probe-1/probe\" failed: no"
    );
    assert_eq!(several.code, ErrorCode::Internal);
    assert_eq!(requests(&pool), [0], "what was booked is given back");
}

#[test]
fn what_plugins_change_and_follow_reaches_the_transport() {
    let pool = Pool::of(1);
    let probe = Probe::default();
    let scheduler = with(std::slice::from_ref(&probe));
    let mut request = request("hello");
    scheduler.prepare(&mut request).unwrap();
    assert_eq!(&*request.objective.fairness_id, "from-a-plugin");

    let select = || Select::select(&scheduler, pool.now, &request, &pool.snapshot, None).unwrap();
    let mut selection = select();
    assert_eq!(&*selection.set_headers[0].name, "x-set");
    assert_eq!(&*selection.remove_headers[0], "x-removed");
    assert_eq!(selection.destination.as_deref(), Some("10.9.9.9:1"));
    let head = ResponseHead {
        served: Some("10.0.0.0:8000"),
        header: &|name| (name == "x-engine").then_some("vllm"),
        ..ResponseHead::new(200, None)
    };
    let set = selection.held.on_headers(&head);
    assert_eq!(&*set[0].value, "10.0.0.0:8000 Some(\"vllm\")");
    selection.held.on_first_chunk(pool.now);
    selection.held.on_chunk(pool.now, 7);
    let mut end = ResponseEnd::default();
    end.usage.completion = 5;
    let reported = selection.held.on_complete(pool.now, &end);
    assert_eq!(reported[0].value, MetadataValue::Number(5.0));

    let mut aborted = select();
    Held::on_aborted(&mut *aborted.held, pool.now, Termination::ClientDisconnect);
    assert_eq!(requests(&pool), [0]);
    let seen = probe.seen.lock().unwrap();
    let seen: Vec<&str> = seen
        .iter()
        .map(String::as_str)
        .filter(|what| !what.ends_with(" 1"))
        .collect();
    assert_eq!(seen, ["first", "chunk 7", "ClientDisconnect"]);
}

#[test]
fn what_plugins_hold_is_shown_and_of_the_others_that_they_do_not() {
    let scheduler = default_scheduler(BuildEnv::detached());
    let pool = Pool::of(3);
    let held = [
        decide(&scheduler, &pool).unwrap(),
        decide(&scheduler, &pool).unwrap(),
    ];
    let state = scheduler.state();
    let of = |plugin: &str| {
        let mut found = state.iter().filter(|(name, _)| &*name.name == plugin);
        found.next().unwrap().1.clone()
    };
    assert_eq!(of("queue-scorer"), None);
    let load = of("inflight-load-producer").unwrap();
    let endpoint = |place: usize| held[place].endpoints[0].name().to_string();
    let mut names = [endpoint(0), endpoint(1)];
    names.sort();
    // "hello" is two tokens of four bytes.
    assert_eq!(
        load,
        serde_json::json!({
            "endpoints": [
                {"endpoint": names[0], "requests": 1, "tokens": 2},
                {"endpoint": names[1], "requests": 1, "tokens": 2},
            ],
            "totalEndpoints": 2,
            "maxEndpoints": 100,
            "truncated": false,
        })
    );
    drop(held);
    let load = scheduler
        .state()
        .into_iter()
        .find_map(|(name, state)| (&*name.name == "inflight-load-producer").then_some(state?));
    assert_eq!(load.unwrap()["endpoints"][0]["requests"], 0);
}
