//! Any order of messages, cut off anywhere: nothing stays booked, and the answers keep Envoy's rules.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Once};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use llmd_epp_api::{
    Endpoint, EndpointName, EndpointSpec, MetricsRecord, MetricsScope, Reach, SlotTable, Snapshot,
};
use llmd_epp_core::exchange::Options;
use llmd_epp_core::parsers::Parsers;
use llmd_epp_core::request_metrics::RequestMetrics;
use llmd_epp_core::{BuildEnv, EndpointPickerConfig, Epp, Scheduler, Termination};
use prometheus::Registry;
use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

use super::conversation::Conversation;
use super::proto::{
    Answer, CommonAnswer, Event, HeaderMap, HeaderValue, HttpBody, HttpHeaders, HttpTrailers,
    ProcessingRequest,
};
use super::{ExtProc, ReceivedBytes};
use crate::body_budget::BodyBudget;
use crate::waiting::{self, WaitingMetrics, WaitingRoom};

/// Smaller than some bodies together.
const BUDGET: usize = 3000;
const MOST_CHUNK: usize = 64 * 1024;

#[derive(Clone, Debug)]
enum Step {
    Head {
        path: usize,
        end: bool,
    },
    /// So many of the bytes that are left, or of others where none are.
    Body {
        bytes: usize,
        end: bool,
    },
    Trailers,
    ResponseHead {
        status: &'static str,
        events: bool,
        end: bool,
    },
    ResponseBody {
        bytes: usize,
        end: bool,
    },
    ResponseTrailers,
    /// What waits may go on.
    Poll,
    PoolIsEmpty,
    PoolIsBack,
}

const PATHS: [&str; 5] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/messages/count_tokens",
    "/v1/audio/transcriptions",
    "/v1/models",
];

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..PATHS.len(), any::<bool>()).prop_map(|(path, end)| Step::Head { path, end }),
        6 => (0_usize..1500, any::<bool>()).prop_map(|(bytes, end)| Step::Body { bytes, end }),
        1 => Just(Step::Trailers),
        2 => (prop::sample::select(vec!["200", "503"]), any::<bool>(), any::<bool>())
            .prop_map(|(status, events, end)| Step::ResponseHead { status, events, end }),
        4 => (0_usize..200, any::<bool>()).prop_map(|(bytes, end)| Step::ResponseBody { bytes, end }),
        1 => Just(Step::ResponseTrailers),
        2 => Just(Step::Poll),
        1 => Just(Step::PoolIsEmpty),
        1 => Just(Step::PoolIsBack),
    ]
}

/// The order in which Envoy sends, with other steps in between.
fn in_order() -> impl Strategy<Value = Vec<Step>> {
    let bodies = proptest::collection::vec(0_usize..1500, 0..4);
    let between = proptest::collection::vec((0_usize..12, step()), 0..3);
    (0..PATHS.len(), bodies, any::<bool>(), between).prop_map(|(path, bodies, trailers, between)| {
        let mut steps = vec![Step::Head { path, end: false }];
        steps.extend(bodies.into_iter().map(|bytes| Step::Body { bytes, end: false }));
        steps.push(if trailers {
            Step::Trailers
        } else {
            Step::Body {
                bytes: usize::MAX,
                end: true,
            }
        });
        steps.extend([
            Step::Poll,
            Step::ResponseHead {
                status: "200",
                events: false,
                end: false,
            },
            Step::ResponseBody { bytes: 80, end: true },
        ]);
        for (at, other) in between {
            steps.insert(at.min(steps.len()), other);
        }
        steps
    })
}

struct World {
    shared: Arc<ExtProc>,
    pool: Arc<ArcSwap<Snapshot>>,
    full: Arc<Snapshot>,
    room: Arc<WaitingRoom>,
    runtime: tokio::runtime::Runtime,
}

fn world() -> World {
    let registry = Registry::new();
    let env = BuildEnv {
        registry: registry.clone(),
        ..BuildEnv::detached()
    };
    let scheduler = Scheduler::build(&EndpointPickerConfig::upstream_default(), env).expect("builds");
    let slots = SlotTable::default();
    let members = (1..=3_u8).map(|index| {
        let name = EndpointName::new("default", format!("pod-{index}"));
        let spec = EndpointSpec {
            pod: "pod".into(),
            address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, index)),
            port: 8000,
            rank: 0,
            labels: std::collections::BTreeMap::new(),
            reach: Reach::default(),
            name: name.clone(),
        };
        (
            Arc::new(Endpoint::new(spec, slots.slot(&name))),
            Arc::new(MetricsRecord::default()),
        )
    });
    let full = Arc::new(Snapshot::new(1, members.collect()));
    scheduler.endpoints_changed(&full);
    let metrics = RequestMetrics::register(&registry, false, "", "").expect("registers");
    let epp = Epp::new(
        Arc::new(scheduler),
        Parsers::default(),
        metrics,
        Options::default(),
    );
    let pool = Arc::new(ArcSwap::new(Arc::clone(&full)));
    let seen = Arc::clone(&pool);
    let options = waiting::Options {
        ttl: Duration::from_secs(600),
        max_requests: 2,
        max_bytes: 2000,
    };
    let scope = MetricsScope::new(registry.clone(), false);
    let waiting = WaitingMetrics::register(&scope, "pool").expect("registers");
    let room = WaitingRoom::new(options, waiting, CancellationToken::new());
    room.endpoints_changed(true);
    World {
        shared: Arc::new(ExtProc {
            epp: Arc::new(epp),
            snapshots: Arc::new(move || seen.load_full()),
            answers: Arc::new(|_, _, _| {}),
            emit_endpoint_scores: false,
            warned: Once::new(),
            received: ReceivedBytes::register(&registry).expect("registers"),
            stream_metrics: None,
            shadow: None,
            bodies: Arc::new(BodyBudget::new(BUDGET)),
            waiting: Some(Arc::clone(&room)),
            tracing: false,
        }),
        pool,
        full,
        room,
        // For the timers of what waits.
        runtime: tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime"),
    }
}

fn head(fields: &[(&str, &str)], end_of_stream: bool) -> HttpHeaders {
    let value = |(key, value): &(&str, &str)| HeaderValue {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::new(),
        raw_value: Bytes::copy_from_slice(value.as_bytes()),
    };
    HttpHeaders {
        headers: Some(HeaderMap {
            headers: fields.iter().map(value).collect(),
        }),
        end_of_stream,
    }
}

/// What went out of one conversation.
#[derive(Default)]
struct Out {
    heads: usize,
    body: Vec<u8>,
    body_ended: bool,
    immediate: bool,
}

impl Out {
    fn take(&mut self, conversation: &mut Conversation) -> Result<(), TestCaseError> {
        while let Some(response) = conversation.answers.pop_front() {
            prop_assert!(!self.immediate, "an answer after the last one");
            match response.answer {
                Some(Answer::RequestHeaders(_)) => {
                    self.heads += 1;
                    prop_assert_eq!(self.heads, 1, "two answers to one head");
                }
                Some(Answer::RequestBody(answer)) => {
                    prop_assert_eq!(self.heads, 1, "a body before its head");
                    prop_assert!(!self.body_ended, "a chunk after the end");
                    let chunk = chunk_of(answer);
                    prop_assert!(chunk.body.len() <= MOST_CHUNK);
                    self.body_ended = chunk.end_of_stream;
                    self.body.extend_from_slice(&chunk.body);
                }
                Some(Answer::Immediate(_)) => self.immediate = true,
                _ => {}
            }
        }
        Ok(())
    }
}

fn chunk_of(answer: CommonAnswer) -> HttpBody {
    let mutation = answer.response.and_then(|response| response.body_mutation);
    mutation
        .and_then(|mutation| mutation.streamed_response)
        .expect("a streamed chunk")
}

/// Plays the steps; checks what goes out and that nothing stays behind.
fn play(steps: &[Step], body: &[u8], cut: Option<Termination>) -> Result<(), TestCaseError> {
    let world = world();
    let _entered = world.runtime.enter();
    let mut conversation = Conversation::new(Arc::clone(&world.shared));
    let (mut left, mut sent, mut out) = (body, Vec::new(), Out::default());
    let mut began = false;
    for step in steps {
        if conversation.end.is_some() {
            break;
        }
        let now = Instant::now();
        let event = match step {
            Step::Head { path, end } => {
                began = true;
                let method = if *end { "GET" } else { "POST" };
                Event::RequestHeaders(head(&[(":path", PATHS[*path]), (":method", method)], *end))
            }
            Step::Body { bytes, end } => {
                let (chunk, rest) = left.split_at(left.len().min(*bytes));
                left = rest;
                if began && !out.body_ended {
                    sent.extend_from_slice(chunk);
                }
                Event::RequestBody(HttpBody {
                    body: Bytes::copy_from_slice(chunk),
                    end_of_stream: *end,
                })
            }
            Step::Trailers => Event::RequestTrailers(HttpTrailers::default()),
            Step::ResponseHead { status, events, end } => {
                let kind = if *events {
                    "text/event-stream"
                } else {
                    "application/json"
                };
                Event::ResponseHeaders(head(&[(":status", status), ("content-type", kind)], *end))
            }
            Step::ResponseBody { bytes, end } => Event::ResponseBody(HttpBody {
                body: vec![b'{'; *bytes].into(),
                end_of_stream: *end,
            }),
            Step::ResponseTrailers => Event::ResponseTrailers(HttpTrailers::default()),
            Step::Poll => {
                let mut cx = Context::from_waker(Waker::noop());
                while conversation.poll_turn(&mut cx).is_ready() {}
                out.take(&mut conversation)?;
                continue;
            }
            Step::PoolIsEmpty | Step::PoolIsBack => {
                let is_back = matches!(step, Step::PoolIsBack);
                world.pool.store(if is_back {
                    Arc::clone(&world.full)
                } else {
                    Arc::default()
                });
                world.room.endpoints_changed(is_back);
                continue;
            }
        };
        let message = ProcessingRequest {
            event: Some(event),
            ..ProcessingRequest::default()
        };
        conversation.on_message(now, message);
        out.take(&mut conversation)?;
    }
    prop_assert!(sent.starts_with(&out.body), "other bytes went out than came in");
    if let Some(cause) = cut {
        drop(conversation.close(Instant::now(), cause));
    }
    drop(conversation);
    let booked: u64 = world
        .full
        .endpoints
        .iter()
        .map(|one| one.slot().requests() + one.slot().tokens())
        .sum();
    prop_assert_eq!(booked, 0, "load stays booked");
    prop_assert_eq!(world.shared.bodies.used(), 0, "bytes stay held");
    prop_assert_eq!(world.shared.epp.activity().open, 0, "an exchange stays open");
    Ok(())
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let prompt = "[a-z ]{0,3000}";
    prop_oneof![
        3 => prompt.prop_map(|prompt| {
            format!(r#"{{"model":"m","prompt":"p","messages":[{{"role":"user","content":"{prompt}"}}]}}"#).into_bytes()
        }),
        1 => proptest::collection::vec(any::<u8>(), 0..200),
    ]
}

fn cut() -> impl Strategy<Value = Option<Termination>> {
    prop::sample::select(vec![
        None,
        Some(Termination::Complete),
        Some(Termination::ClientDisconnect),
        Some(Termination::Error),
    ])
}

proptest! {
    #[test]
    fn any_order_of_messages(steps in proptest::collection::vec(step(), 0..16), body in body(), cut in cut()) {
        play(&steps, &body, cut)?;
    }

    #[test]
    fn envoys_order_cut_anywhere(steps in in_order(), keep in 0_usize..14, body in body(), cut in cut()) {
        play(&steps[..keep.min(steps.len())], &body, cut)?;
    }
}
