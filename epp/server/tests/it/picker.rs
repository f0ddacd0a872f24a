//! A picker behind the real gRPC server, and a client that speaks ext-proc to it.

#![allow(clippy::panic, reason = "a failed expectation of a test")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::uri::PathAndQuery;
use llmd_epp::body_budget::BodyBudget;
use llmd_epp::extproc::proto::{
    Answer, Event, HeaderMap, HeaderMutation, HeaderValue, HttpBody, HttpHeaders, HttpTrailers,
    ImmediateResponse, Metadata, ProcessingRequest, ProcessingResponse,
};
use llmd_epp::extproc::{ExtProc, PROCESS, ReceivedBytes, StreamMetrics};
use llmd_epp::grpc::{self, MessageLimits, Services};
use llmd_epp::health::Health;
use llmd_epp_api::{
    Endpoint, EndpointName, EndpointSpec, InferenceRequest, MetricsRecord, Rejection, Reservation,
    ResponseEnd, Slot, Snapshot,
};
use llmd_epp_core::exchange::{Held, Options, Select, Selection};
use llmd_epp_core::parsers::Parsers;
use llmd_epp_core::request_metrics::RequestMetrics;
use llmd_epp_core::traffic::TrafficRules;
use llmd_epp_core::{BuildEnv, EndpointPickerConfig, Epp, Scheduler};
use llmd_openai::Limits;
use prometheus::Registry;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

/// Longest wait for anything in these tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Fewest requests first; reserves what it picks.
struct LeastLoaded;

struct Load(Reservation, Arc<str>);

impl Held for Load {
    fn on_first_chunk(&mut self, _: Instant) {
        self.0.release_tokens();
    }
    fn on_complete(&mut self, _: Instant, _: &ResponseEnd) -> Vec<llmd_epp_api::Metadata> {
        Vec::new()
    }
    fn scores(&self) -> Vec<(Arc<str>, f64)> {
        vec![(Arc::clone(&self.1), 0.5)]
    }
}

impl Select for LeastLoaded {
    fn select(
        &self,
        _: Instant,
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
        let reservation = endpoint.slot().reserve(request.size_bytes as u64);
        let load = Load(reservation, Arc::clone(endpoint.target()));
        Ok(Selection::new(vec![Arc::clone(endpoint)], Box::new(load)))
    }
}

/// How a [`Picker`] is set up.
pub(crate) struct Setup {
    pub(crate) endpoints: u8,
    pub(crate) max_body: usize,
    pub(crate) max_buffered: usize,
    pub(crate) emit_endpoint_scores: bool,
    pub(crate) limits: MessageLimits,
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
    /// Plugins and profiles of an `EndpointPickerConfig`; none picks the least loaded endpoint.
    pub(crate) config: &'static str,
    /// Names and priorities of objectives.
    pub(crate) objectives: &'static [(&'static str, i32)],
    /// Requests in the queue of each engine.
    pub(crate) waiting: u32,
    /// Labels of each endpoint.
    pub(crate) labels: &'static [&'static [(&'static str, &'static str)]],
    /// How long open streams may live after [`Picker::stop`].
    pub(crate) drain: Duration,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            endpoints: 3,
            max_body: 64 << 20,
            max_buffered: 1 << 30,
            emit_endpoint_scores: false,
            limits: MessageLimits::default(),
            tls: None,
            config: "",
            labels: &[],
            objectives: &[],
            waiting: 0,
            drain: PATIENCE,
        }
    }
}

fn selecting(config: &str, registry: &Registry) -> Arc<dyn Select> {
    if config.is_empty() {
        return Arc::new(LeastLoaded);
    }
    let text = format!("apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n{config}");
    let decoded = EndpointPickerConfig::decode(&text).expect("decodes");
    let env = BuildEnv {
        registry: registry.clone(),
        allow_experimental: true,
        ..BuildEnv::detached()
    };
    Arc::new(Scheduler::build(&decoded.config, env).expect("builds"))
}

/// A running ext-proc server over a pool of `192.168.1.1` and up.
pub(crate) struct Picker {
    pub(crate) address: SocketAddr,
    pub(crate) registry: Registry,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) health: Health,
    pub(crate) bodies: Arc<BodyBudget>,
    pub(crate) stop: CancellationToken,
    pub(crate) served: tokio::task::JoinHandle<()>,
}

impl Picker {
    pub(crate) async fn start(setup: Setup) -> Self {
        let Setup {
            endpoints,
            max_body,
            max_buffered,
            emit_endpoint_scores,
            limits,
            tls,
            config,
            objectives,
            waiting,
            labels,
            drain,
        } = setup;
        let registry = Registry::new();
        let metrics = RequestMetrics::register(&registry, true, "", "").expect("registers");
        let members = (1..=endpoints).map(|index| {
            let labels = labels.get(usize::from(index) - 1).copied().unwrap_or_default();
            let labels = labels
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            let spec = EndpointSpec {
                name: EndpointName::new("default", format!("pod-{index}")),
                pod: format!("pod-{index}").into(),
                address: IpAddr::V4(Ipv4Addr::new(192, 168, 1, index)),
                port: 8000,
                rank: 0,
                reach: llmd_epp_api::Reach::default(),
                labels: labels.collect(),
            };
            (
                Arc::new(Endpoint::new(spec, Slot::detached(u32::from(index)))),
                Arc::new(MetricsRecord {
                    waiting_queue_size: waiting,
                    ..MetricsRecord::default()
                }),
            )
        });
        let snapshot = Arc::new(Snapshot::new(1, members.collect()));
        let options = Options {
            limits: Limits {
                max_bytes: max_body,
                ..Limits::default()
            },
            ..Options::default()
        };
        let epp = Epp::new(selecting(config, &registry), Parsers::default(), metrics, options);
        let priorities = objectives
            .iter()
            .map(|(name, priority)| ((*name).into(), *priority));
        epp.set_traffic_rules(TrafficRules::new(priorities, Vec::new()));
        let pool = Arc::clone(&snapshot);
        let bodies = Arc::new(BodyBudget::new(max_buffered));
        let ext_proc = ExtProc {
            epp: Arc::new(epp),
            answers: Arc::new(|_, _, _| {}),
            snapshots: Arc::new(move || Arc::clone(&pool)),
            emit_endpoint_scores,
            warned: std::sync::Once::new(),
            received: ReceivedBytes::register(&registry).expect("registers"),
            stream_metrics: Some(StreamMetrics::register(&registry).expect("registers")),
            shadow: None,
            bodies: Arc::clone(&bodies),
            waiting: None,
            tracing: true,
        };
        let health = Health::new(true);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("binds");
        let address = listener.local_addr().expect("bound");
        let services = Services {
            eds: None,
            ext_proc: Some(Arc::new(ext_proc)),
            health: Some(health.clone()),
            limits,
        };
        let stop = CancellationToken::new();
        let served = tokio::spawn(grpc::serve(listener, tls, services, None, stop.clone(), drain));
        Self {
            address,
            registry,
            snapshot,
            health,
            bodies,
            stop,
            served,
        }
    }

    /// Requests and tokens reserved over the whole pool.
    pub(crate) fn load(&self) -> (u64, u64) {
        self.snapshot
            .endpoints
            .iter()
            .map(|endpoint| endpoint.slot())
            .fold((0, 0), |sum, slot| {
                (sum.0 + slot.requests(), sum.1 + slot.tokens())
            })
    }

    /// Sum over the series of a family whose labels include `labels`.
    pub(crate) fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let families = self.registry.gather();
        let Some(family) = families.iter().find(|family| family.name() == name) else {
            return 0.0;
        };
        let has = |metric: &prometheus::proto::Metric, label: &str, value: &str| {
            metric
                .get_label()
                .iter()
                .any(|pair| pair.name() == label && pair.value() == value)
        };
        let metrics = family.get_metric().iter();
        metrics
            .filter(|metric| labels.iter().all(|(label, value)| has(metric, label, value)))
            .map(|metric| {
                metric.get_counter().get_value()
                    + metric.get_gauge().get_value()
                    + metric.get_histogram().get_sample_sum()
            })
            .sum()
    }

    pub(crate) async fn open(&self) -> Call {
        let channel = Channel::from_shared(format!("http://{}", self.address)).expect("an address");
        Call::open(channel.connect().await.expect("connects")).await
    }
}

/// One ext-proc stream, seen from Envoy.
pub(crate) struct Call {
    sender: Option<mpsc::Sender<ProcessingRequest>>,
    answers: Streaming<ProcessingResponse>,
}

/// What came back for a request: the head's answer and the body.
pub(crate) struct Forwarded {
    pub(crate) head: ProcessingResponse,
    pub(crate) mutation: HeaderMutation,
    pub(crate) body: Vec<u8>,
    pub(crate) chunks: Vec<usize>,
}

impl Forwarded {
    /// The value a header is set to.
    pub(crate) fn set(&self, name: &str) -> Option<String> {
        self.mutation.set_headers.iter().find_map(|option| {
            let header = option.header.as_ref()?;
            (header.key == name).then(|| String::from_utf8(header.raw_value.to_vec()).expect("text"))
        })
    }
}

impl Call {
    pub(crate) async fn open(channel: Channel) -> Self {
        let (sender, receiver) = mpsc::channel(64);
        let mut grpc = tonic::client::Grpc::new(channel).max_decoding_message_size(64 << 20);
        grpc.ready().await.expect("ready");
        let outgoing = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let codec = ProstCodec::<ProcessingRequest, ProcessingResponse>::new();
        let path = PathAndQuery::from_static(PROCESS);
        let answers = grpc
            .streaming(Request::new(outgoing), path, codec)
            .await
            .expect("opens")
            .into_inner();
        Self {
            sender: Some(sender),
            answers,
        }
    }

    pub(crate) async fn send(&mut self, event: Event) {
        self.send_with(event, None).await;
    }

    pub(crate) async fn send_with(&mut self, event: Event, metadata_context: Option<Metadata>) {
        let message = ProcessingRequest {
            event: Some(event),
            metadata_context,
            ..ProcessingRequest::default()
        };
        self.message(message).await;
    }

    pub(crate) async fn message(&mut self, message: ProcessingRequest) {
        // The server may have ended the stream already; the answers tell.
        let _ = self.sender.as_ref().expect("open").send(message).await;
    }

    /// Half-closes the stream, as Envoy does when a request is over.
    pub(crate) fn half_close(&mut self) {
        self.sender = None;
    }

    pub(crate) async fn next(&mut self) -> Option<Result<ProcessingResponse, Status>> {
        tokio::time::timeout(PATIENCE, self.answers.message())
            .await
            .expect("an answer in time")
            .transpose()
    }

    pub(crate) async fn answer(&mut self) -> ProcessingResponse {
        self.next().await.expect("an answer").expect("no error")
    }

    pub(crate) async fn immediate(&mut self) -> ImmediateResponse {
        match self.answer().await.answer {
            Some(Answer::Immediate(response)) => response,
            other => panic!("not an immediate response: {other:?}"),
        }
    }

    /// Sends a chat request head and a body in `chunks`.
    pub(crate) async fn request(&mut self, extra: &[(&str, &str)], chunks: &[&[u8]]) {
        let mut headers = vec![(":path", "/v1/chat/completions"), (":method", "POST")];
        headers.extend_from_slice(extra);
        self.send(head(&headers, false)).await;
        for (index, chunk) in chunks.iter().enumerate() {
            self.send(request_body(chunk, index + 1 == chunks.len())).await;
        }
    }

    /// Collects the answers to a request up to the end of its body.
    pub(crate) async fn forwarded(&mut self) -> Forwarded {
        let head = self.answer().await;
        let Some(Answer::RequestHeaders(common)) = &head.answer else {
            panic!("not the head: {head:?}")
        };
        let mutation = common
            .response
            .clone()
            .and_then(|response| response.header_mutation);
        let (mut body, mut chunks) = (Vec::new(), Vec::new());
        loop {
            let answer = self.answer().await;
            let Some(Answer::RequestBody(common)) = answer.answer else {
                panic!("not the body: {answer:?}")
            };
            let chunk = common.response.and_then(|response| response.body_mutation);
            let chunk = chunk
                .and_then(|mutation| mutation.streamed_response)
                .expect("a chunk");
            chunks.push(chunk.body.len());
            body.extend_from_slice(&chunk.body);
            if chunk.end_of_stream {
                return Forwarded {
                    mutation: mutation.expect("header changes"),
                    head,
                    body,
                    chunks,
                };
            }
        }
    }

    /// The next response body chunk.
    pub(crate) async fn response_chunk(&mut self) -> HttpBody {
        let answer = self.answer().await;
        let Some(Answer::ResponseBody(common)) = answer.answer else {
            panic!("not a body: {answer:?}")
        };
        let chunk = common.response.and_then(|response| response.body_mutation);
        chunk
            .and_then(|mutation| mutation.streamed_response)
            .expect("a chunk")
    }
}

fn map(headers: &[(&str, &str)]) -> HeaderMap {
    let value = |(name, value): &(&str, &str)| HeaderValue {
        key: Bytes::copy_from_slice(name.as_bytes()),
        value: Bytes::new(),
        raw_value: Bytes::copy_from_slice(value.as_bytes()),
    };
    HeaderMap {
        headers: headers.iter().map(value).collect(),
    }
}

pub(crate) fn head(headers: &[(&str, &str)], end_of_stream: bool) -> Event {
    Event::RequestHeaders(HttpHeaders {
        headers: Some(map(headers)),
        end_of_stream,
    })
}

pub(crate) fn response_head(headers: &[(&str, &str)]) -> Event {
    Event::ResponseHeaders(HttpHeaders {
        headers: Some(map(headers)),
        end_of_stream: false,
    })
}

pub(crate) fn request_body(body: &[u8], end_of_stream: bool) -> Event {
    Event::RequestBody(HttpBody {
        body: Bytes::copy_from_slice(body),
        end_of_stream,
    })
}

pub(crate) fn response_body(body: &[u8], end_of_stream: bool) -> Event {
    Event::ResponseBody(HttpBody {
        body: Bytes::copy_from_slice(body),
        end_of_stream,
    })
}

pub(crate) fn trailers() -> HttpTrailers {
    HttpTrailers {
        trailers: Some(map(&[("x-checksum", "1")])),
    }
}

/// Metadata of a response that `endpoint` served.
pub(crate) fn served(endpoint: &str) -> Metadata {
    let value = Value {
        kind: Some(Kind::StringValue(endpoint.to_owned())),
    };
    let fields = [("x-gateway-destination-endpoint-served".to_owned(), value)].into();
    Metadata {
        filter_metadata: [("envoy.lb".to_owned(), Struct { fields })].into(),
    }
}

/// Metadata that restricts the pool to `entries`.
pub(crate) fn subset(entries: &[&str]) -> Metadata {
    let text = |entry: &&str| Value {
        kind: Some(Kind::StringValue((*entry).to_owned())),
    };
    let list = Value {
        kind: Some(Kind::ListValue(ListValue {
            values: entries.iter().map(text).collect(),
        })),
    };
    let fields = [("x-gateway-destination-endpoint-subset".to_owned(), list)].into();
    Metadata {
        filter_metadata: [("envoy.lb.subset_hint".to_owned(), Struct { fields })].into(),
    }
}

pub(crate) const CHAT: &[u8] = br#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;
