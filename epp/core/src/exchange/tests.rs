#![allow(clippy::float_cmp, reason = "sums of values that floats hold exactly")]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, Ordering};

use llmd_epp_api::{EndpointName, EndpointSpec, MetricsRecord, Reservation, Slot};
use prometheus::Registry;

use super::*;

mod encodings;
mod interleavings;
mod traffic;

/// Picks the candidate with the fewest requests and reserves it.
#[derive(Default)]
struct LeastLoaded {
    completed: Arc<AtomicU64>,
}

struct Load {
    reservation: Reservation,
    scores: Vec<(Arc<str>, f64)>,
    completed: Arc<AtomicU64>,
}

impl Held for Load {
    fn on_first_chunk(&mut self, _now: Instant) {
        self.reservation.release_tokens();
    }

    fn on_complete(&mut self, _now: Instant, end: &ResponseEnd) -> Vec<Metadata> {
        self.completed
            .fetch_add(1 + end.usage.completion, Ordering::Relaxed);
        Vec::new()
    }

    fn scores(&self) -> Vec<(Arc<str>, f64)> {
        self.scores.clone()
    }
}

impl Select for LeastLoaded {
    fn select(
        &self,
        _now: Instant,
        request: &InferenceRequest,
        snapshot: &Snapshot,
        candidates: Option<&[u32]>,
    ) -> Result<Selection, Rejection> {
        let all: Vec<u32> = (0..snapshot.len() as u32).collect();
        let candidates = candidates
            .unwrap_or(&all)
            .iter()
            .map(|index| &snapshot.endpoints[*index as usize]);
        let endpoint = candidates
            .min_by_key(|endpoint| endpoint.slot().requests())
            .expect("a candidate");
        let load = Load {
            reservation: endpoint.slot().reserve(request.size_bytes as u64),
            scores: vec![(Arc::clone(endpoint.target()), 1.0)],
            completed: Arc::clone(&self.completed),
        };
        let mut selection = Selection::new(vec![Arc::clone(endpoint)], Box::new(load));
        selection.set_headers.push(HeaderChange {
            name: "x-session-token".into(),
            value: "abc".into(),
        });
        Ok(selection)
    }
}

struct World {
    epp: Arc<Epp>,
    registry: Registry,
    snapshot: Snapshot,
    completed: Arc<AtomicU64>,
    now: Instant,
}

fn world_with(endpoints: u8, options: Options, parsers: Parsers) -> World {
    let registry = Registry::new();
    let metrics = RequestMetrics::register(&registry, true, "", "").expect("registers");
    let scheduler = LeastLoaded::default();
    let completed = Arc::clone(&scheduler.completed);
    let members = (1..=endpoints).map(|index| {
        let spec = EndpointSpec {
            name: EndpointName::new("default", format!("e{index}")),
            pod: format!("e{index}").into(),
            address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, index)),
            port: 8000,
            rank: 0,
            reach: llmd_epp_api::Reach::default(),
            labels: std::collections::BTreeMap::default(),
        };
        let endpoint = Endpoint::new(spec, Slot::detached(u32::from(index)));
        (Arc::new(endpoint), Arc::new(MetricsRecord::default()))
    });
    World {
        epp: Arc::new(Epp::new(Arc::new(scheduler), parsers, metrics, options)),
        registry,
        snapshot: Snapshot::new(1, members.collect()),
        completed,
        now: Instant::now(),
    }
}

fn world(endpoints: u8) -> World {
    world_with(endpoints, Options::default(), Parsers::default())
}

impl World {
    fn open(&self, headers: &[(&str, &str)]) -> Exchange {
        let mut all = Headers::default();
        for (name, value) in headers {
            all.push(name, value.as_bytes());
        }
        self.epp.open(self.now, all, "request-1".into())
    }

    fn route(&self, exchange: &mut Exchange, body: &[u8]) -> Result<Routed, Rejection> {
        exchange.on_request_chunk(body)?;
        exchange.on_request_end(self.now, &self.snapshot, &Hints::default())
    }

    fn load(&self) -> (u64, u64) {
        let slots = self.snapshot.endpoints.iter().map(|endpoint| endpoint.slot());
        slots.fold((0, 0), |(requests, tokens), slot| {
            (requests + slot.requests(), tokens + slot.tokens())
        })
    }

    fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let families = self.registry.gather();
        let Some(family) = families.iter().find(|family| family.name() == name) else {
            return 0.0;
        };
        let metrics = family.get_metric().iter().filter(|metric| {
            labels.iter().all(|(label, value)| {
                metric
                    .get_label()
                    .iter()
                    .any(|pair| pair.name() == *label && pair.value() == *value)
            })
        });
        metrics
            .map(|metric| {
                metric.get_counter().get_value()
                    + metric.get_gauge().get_value()
                    + metric.get_histogram().get_sample_sum()
            })
            .sum()
    }
}

const CHAT: (&str, &str) = (":path", "/v1/chat/completions?x=1");
const BODY: &[u8] = br#"{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true}"#;

#[test]
fn a_request_is_routed_and_its_load_is_given_back_at_the_end() {
    let world = world(2);
    let mut exchange = world.open(&[CHAT]);
    let routed = world.route(&mut exchange, BODY).expect("routed");
    assert_eq!(&*routed.destination, "10.0.0.1:8000");
    assert_eq!(&*routed.set_headers[0].name, "x-session-token");
    assert_eq!(routed.model_splice, None);
    assert_eq!(exchange.scores(), [("10.0.0.1:8000".into(), 1.0)]);
    assert_eq!(world.load(), (1, BODY.len() as u64));
    assert_eq!(
        world.metric("llm_d_epp_request_running", &[("model_name", "m")]),
        1.0
    );

    exchange.on_response_headers(
        world.now,
        &ResponseHead::new(200, Some("text/event-stream; charset=utf-8")),
    );
    let mut out = Vec::new();
    let later = world.now + Duration::from_millis(500);
    exchange.on_response_chunk(later, Bytes::from_static(b"data: {\"a\":1}\n\n"), false, &mut out);
    assert_eq!(world.load(), (1, 0));
    let usage = b"data: {\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":11,\"total_tokens\":18}}\n\n";
    exchange.on_response_chunk(
        later + Duration::from_millis(500),
        Bytes::from_static(usage),
        false,
        &mut out,
    );
    exchange.on_response_chunk(
        later + Duration::from_millis(500),
        Bytes::from_static(b"data: [DONE]\n\n"),
        true,
        &mut out,
    );
    exchange.finish(later + Duration::from_millis(500), Termination::Complete);
    exchange.finish(later + Duration::from_millis(900), Termination::Error);
    assert_eq!(out.len(), 3);
    assert_eq!(world.load(), (0, 0));
    assert_eq!(world.completed.load(Ordering::Relaxed), 12);
    let of_m = &[("model_name", "m")];
    assert_eq!(world.metric("llm_d_epp_request_running", of_m), 0.0);
    assert_eq!(world.metric("inference_objective_input_tokens", of_m), 7.0);
    assert_eq!(
        world.metric("llm_d_epp_request_ttft_seconds", &[("streaming", "true")]),
        0.5
    );
    assert_eq!(
        world.metric("llm_d_epp_request_streaming_tpot_seconds", of_m),
        0.05
    );
    assert_eq!(world.metric("llm_d_epp_request_duration_seconds", of_m), 1.0);
    assert_eq!(world.metric("llm_d_epp_request_error_total", of_m), 0.0);
}

#[test]
fn a_rewrite_header_changes_the_model_and_the_response_gets_the_old_name_back() {
    let world = world(1);
    let mut exchange = world.open(&[CHAT, ("x-llm-d-model-name-rewrite", "target")]);
    let routed = world.route(&mut exchange, BODY).expect("routed");
    let (span, name) = routed.model_splice.expect("a splice");
    assert_eq!((&BODY[span.start..span.end], &*name), (&b"\"m\""[..], "target"));
    exchange.on_response_headers(world.now, &ResponseHead::new(200, Some("application/json")));
    let mut out = Vec::new();
    for (chunk, end) in [("{\"mod", false), ("el\": \"tar", false), ("get\"}", true)] {
        exchange.on_response_chunk(world.now, Bytes::from(chunk), end, &mut out);
    }
    assert_eq!(out.concat(), b"{\"model\": \"m\"}");
}

#[test]
fn the_deprecated_rewrite_header_loses_against_the_canonical_one() {
    let world = world(1);
    let mut exchange = world.open(&[
        CHAT,
        ("x-gateway-model-name-rewrite", "old"),
        ("x-llm-d-model-name-rewrite", "new"),
    ]);
    let routed = world.route(&mut exchange, BODY).expect("routed");
    assert_eq!(&*routed.model_splice.expect("a splice").1, "new");
}

#[test]
fn bad_requests_are_refused_in_upstreams_words() {
    let world = world(1);
    let cases: [(&[u8], ErrorCode, &str); 4] = [
        (
            b"no healthy upstream",
            ErrorCode::BadRequest,
            "error unmarshaling request bodyMap: ",
        ),
        (
            br#"{"messages":[{"role":"user","content":"hi"}]}"#,
            ErrorCode::BadRequest,
            "model not found in request body",
        ),
        (
            b"{\"model\":\"m\"}",
            ErrorCode::BadRequest,
            "invalid chat completions request: must have valid messages field",
        ),
        (
            b"{\"model\":",
            ErrorCode::BadRequest,
            "error unmarshaling request bodyMap: ",
        ),
    ];
    for (body, code, message) in cases {
        let mut exchange = world.open(&[CHAT]);
        let rejection = world.route(&mut exchange, body).expect_err("refused");
        assert_eq!(rejection.code, code);
        assert!(rejection.message.starts_with(message), "{}", rejection.message);
        exchange.finish(world.now, Termination::Error);
    }
    assert_eq!(
        world.metric("llm_d_epp_request_error_total", &[("error_code", "BadRequest")]),
        4.0
    );
    assert_eq!(world.metric("llm_d_epp_request_error_total", &[]), 4.0);
    assert_eq!(world.metric("llm_d_epp_request_total", &[]), 0.0);
}

#[test]
fn an_oversized_body_is_413_whether_it_is_scanned_or_not() {
    let options = Options {
        limits: Limits {
            max_bytes: 64,
            ..Limits::default()
        },
        ..Options::default()
    };
    let world = world_with(1, options, Parsers::default());
    for path in ["/v1/chat/completions", "/v1/audio"] {
        let mut exchange = world.open(&[(":path", path)]);
        let rejection = exchange.on_request_chunk(&[b' '; 65]).expect_err("too large");
        assert_eq!(rejection.code, ErrorCode::PayloadTooLarge);
        assert!(rejection.message.contains("64 bytes"), "{}", rejection.message);
    }
}

#[test]
fn without_endpoints_the_answer_is_503_with_its_reason() {
    let world = world(0);
    let mut exchange = world.open(&[CHAT]);
    let rejection = world.route(&mut exchange, BODY).expect_err("no endpoints");
    assert_eq!(rejection.code, ErrorCode::ServiceUnavailable);
    assert_eq!(rejection.reason, Some(RejectReason::NoEndpoints));
    assert_eq!(
        rejection.message,
        "failed to find endpoint candidates for serving the request"
    );
}

#[test]
fn a_request_without_a_body_is_scheduled_without_a_model() {
    let world = world(1);
    let mut exchange = world.open(&[(":path", "/v1/models"), (":method", "GET")]);
    let routed = exchange
        .on_request_end(world.now, &world.snapshot, &Hints::default())
        .expect("routed");
    assert_eq!(&*routed.destination, "10.0.0.1:8000");
    assert_eq!(
        world.metric("llm_d_epp_request_total", &[("model_name", "")]),
        1.0
    );
}

#[test]
fn an_unclaimed_path_names_itself() {
    let parsers = Parsers::from_types(["openai-parser"]).expect("known");
    let world = world_with(1, Options::default(), parsers);
    let mut exchange = world.open(&[(":path", "/v1/audio?voice=a")]);
    let rejection = world.route(&mut exchange, b"x").expect_err("unclaimed");
    assert_eq!(
        rejection.message,
        "no parser registered matching path suffix for: /v1/audio"
    );
}

#[test]
fn a_subset_restricts_the_pick_unless_it_is_switched_off() {
    let world = world(3);
    let only = |entries: &[&str]| Hints {
        subset: Some(Subset::from_entries(entries.iter().copied())),
    };
    let mut exchange = world.open(&[CHAT]);
    exchange.on_request_chunk(BODY).expect("scanned");
    let routed = exchange
        .on_request_end(world.now, &world.snapshot, &only(&["10.0.0.3:1"]))
        .expect("routed");
    assert_eq!(&*routed.destination, "10.0.0.3:8000");
    for entries in [&["192.168.1.99:8000"][..], &[]] {
        let mut exchange = world.open(&[CHAT]);
        exchange.on_request_chunk(BODY).expect("scanned");
        let rejection = exchange
            .on_request_end(world.now, &world.snapshot, &only(entries))
            .expect_err("none");
        assert_eq!(rejection.reason, Some(RejectReason::NoEndpoints));
    }
    let options = Options {
        ignore_subset: true,
        ..Options::default()
    };
    let open = world_with(1, options, Parsers::default());
    let mut exchange = open.open(&[CHAT]);
    exchange.on_request_chunk(BODY).expect("scanned");
    exchange
        .on_request_end(open.now, &open.snapshot, &only(&[]))
        .expect("the hint is ignored");
}

#[test]
fn routing_outputs_of_clients_are_removed_and_inputs_stay() {
    let world = world(1);
    let mut exchange = world.open(&[
        CHAT,
        ("X-Prefiller-Host-Port", "evil:1"),
        ("x-gateway-destination-endpoint", "evil:2"),
        ("x-gateway-destination-endpoint-served", "evil:3"),
        ("x-llm-d-inference-fairness-id", "tenant"),
        ("x-session-id", "s"),
    ]);
    let routed = world.route(&mut exchange, BODY).expect("routed");
    let removed: Vec<&str> = routed.remove_headers.iter().map(|name| &**name).collect();
    assert_eq!(
        removed,
        ["x-prefiller-host-port", "x-gateway-destination-endpoint-served"]
    );
    assert_eq!(
        world.metric("llm_d_epp_request_total", &[("fairness_id", "tenant")]),
        1.0
    );
}

#[test]
fn rerouting_moves_the_reservation_and_ends_when_nothing_is_left() {
    let world = world(2);
    let mut exchange = world.open(&[CHAT]);
    let first = world.route(&mut exchange, BODY).expect("routed");
    let second = exchange
        .reroute(world.now, &world.snapshot, &Hints::default(), &first.endpoints)
        .expect("the other one");
    assert_eq!(&*second.destination, "10.0.0.2:8000");
    assert_eq!(world.load().0, 1);
    let both: Vec<_> = world.snapshot.endpoints.clone();
    let rejection = exchange.reroute(world.now, &world.snapshot, &Hints::default(), &both);
    assert_eq!(
        rejection.expect_err("none left").reason,
        Some(RejectReason::NoEndpoints)
    );
    assert_eq!(world.metric("llm_d_epp_request_total", &[]), 1.0);
    assert_eq!(world.metric("llm_d_epp_request_running", &[]), 1.0);
    drop(exchange);
    assert_eq!(world.load(), (0, 0));
    assert_eq!(world.metric("llm_d_epp_request_running", &[]), 0.0);
}

#[test]
fn an_engine_error_is_counted_once_as_the_engines() {
    let world = world(1);
    let mut exchange = world.open(&[CHAT]);
    world.route(&mut exchange, BODY).expect("routed");
    exchange.on_response_headers(world.now, &ResponseHead::new(500, None));
    exchange.finish(world.now, Termination::Error);
    assert_eq!(
        world.metric(
            "llm_d_epp_request_error_total",
            &[("error_code", "ModelServerError")]
        ),
        1.0
    );
    assert_eq!(world.metric("llm_d_epp_request_error_total", &[]), 1.0);
}
