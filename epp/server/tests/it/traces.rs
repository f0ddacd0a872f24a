//! One W3C trace from the client to the engine, told to an OTLP receiver.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::{Arc, Mutex};

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use llmd_process::traces::{Exporter, Settings, layer};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;
use tonic::server::{Grpc, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tracing_subscriber::Registry;
use tracing_subscriber::layer::SubscriberExt as _;

use crate::engine::{Engine, Script};
use crate::metrics_server::{Manner, MetricsServer, vllm_page};
use crate::picker::{CHAT, Call, response_body, response_head};
use crate::proxy::rig::{post, send_to, text};
use crate::role::{PORTS, Role, proxy_port, until_async};

/// The messages of `opentelemetry.proto.collector.trace.v1`, as far as a test reads them.
mod otlp {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct ExportRequest {
        #[prost(message, repeated, tag = "1")]
        pub(super) resource_spans: Vec<ResourceSpans>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct ExportResponse {}

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct ResourceSpans {
        #[prost(message, repeated, tag = "2")]
        pub(super) scope_spans: Vec<ScopeSpans>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct ScopeSpans {
        #[prost(message, repeated, tag = "2")]
        pub(super) spans: Vec<Span>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Span {
        #[prost(bytes = "vec", tag = "1")]
        pub(super) trace_id: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        pub(super) id: Vec<u8>,
        #[prost(bytes = "vec", tag = "4")]
        pub(super) parent_span_id: Vec<u8>,
        #[prost(string, tag = "5")]
        pub(super) name: String,
        #[prost(int32, tag = "6")]
        pub(super) kind: i32,
        #[prost(message, repeated, tag = "9")]
        pub(super) attributes: Vec<KeyValue>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct KeyValue {
        #[prost(string, tag = "1")]
        pub(super) key: String,
        #[prost(message, optional, tag = "2")]
        pub(super) value: Option<AnyValue>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct AnyValue {
        #[prost(string, optional, tag = "1")]
        pub(super) string: Option<String>,
        #[prost(bool, optional, tag = "2")]
        pub(super) bool: Option<bool>,
        #[prost(int64, optional, tag = "3")]
        pub(super) int: Option<i64>,
        #[prost(double, optional, tag = "4")]
        pub(super) double: Option<f64>,
    }
}

const SERVER: i32 = 2;
const CLIENT_TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CLIENT_SPAN: &str = "b7ad6b7169203331";

fn traceparent(sampled: bool) -> String {
    format!("00-{CLIENT_TRACE}-{CLIENT_SPAN}-0{}", u8::from(sampled))
}

/// A span as a test compares it.
#[derive(Clone, Debug)]
struct Seen {
    trace: String,
    id: String,
    parent: String,
    name: String,
    kind: i32,
    attributes: BTreeMap<String, String>,
}

fn hex(bytes: &[u8]) -> String {
    let number = bytes
        .iter()
        .fold(0_u128, |number, byte| number << 8 | u128::from(*byte));
    format!("{number:0width$x}", width = bytes.len() * 2)
}

impl From<otlp::Span> for Seen {
    fn from(span: otlp::Span) -> Self {
        let attributes = span.attributes.into_iter().map(|pair| {
            let value = pair.value.unwrap_or_default();
            let text = value
                .string
                .or_else(|| value.bool.map(|value| value.to_string()))
                .or_else(|| value.int.map(|value| value.to_string()))
                .or_else(|| value.double.map(|value| value.to_string()));
            (pair.key, text.unwrap_or_default())
        });
        Self {
            trace: hex(&span.trace_id),
            id: hex(&span.id),
            parent: hex(&span.parent_span_id),
            name: span.name,
            kind: span.kind,
            attributes: attributes.collect(),
        }
    }
}

#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<Seen>>>);

impl Spans {
    fn all(&self) -> Vec<Seen> {
        self.0.lock().expect("spans").clone()
    }
}

impl UnaryService<otlp::ExportRequest> for Spans {
    type Response = otlp::ExportResponse;
    type Future = Ready<Result<Response<otlp::ExportResponse>, Status>>;

    fn call(&mut self, request: Request<otlp::ExportRequest>) -> Self::Future {
        let resources = request.into_inner().resource_spans.into_iter();
        let scopes = resources.flat_map(|resource| resource.scope_spans);
        let spans = scopes.flat_map(|scope| scope.spans).map(Seen::from);
        self.0.lock().expect("spans").extend(spans);
        ready(Ok(Response::new(otlp::ExportResponse {})))
    }
}

/// A collector over gRPC.
async fn collector() -> (String, Spans, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("binds");
    let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
    let spans = Spans::default();
    let received = spans.clone();
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let received = received.clone();
            let service = service_fn(move |request| {
                let received = received.clone();
                async move {
                    let codec = ProstCodec::<otlp::ExportResponse, otlp::ExportRequest>::new();
                    Ok::<_, Infallible>(Grpc::new(codec).unary(received, request).await)
                }
            });
            let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(http2.serve_connection(TokioIo::new(stream), service));
        }
    });
    (endpoint, spans, AbortOnDropHandle::new(serving))
}

const HEAD: &str = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n";
const DISAGGREGATED: &str = "\
plugins:
- type: always-disagg-pd-decider
- type: disagg-profile-handler
  parameters: {deciders: {prefill: always-disagg-pd-decider}}
- type: prefill-filter
- type: decode-filter
- {type: active-request-scorer, name: load}
- type: file-discovery
  parameters: {path: ENDPOINTS}
dataLayer: {discovery: {pluginRef: file-discovery}}
schedulingProfiles:
- {name: prefill, plugins: [{pluginRef: prefill-filter}]}
- {name: decode, plugins: [{pluginRef: decode-filter}, {pluginRef: load, weight: 2}]}
";

#[tokio::test]
async fn a_sampled_request_is_told_in_upstreams_words_and_the_engine_continues_its_trace() {
    let (endpoint, spans, _collector) = collector().await;
    let settings = Settings {
        exporter: Exporter::Otlp(endpoint),
        ratio: 0.0,
        service: "llm-d-epp".into(),
        attributes: Vec::new(),
    };
    let (export, layer) = layer(&settings).expect("an exporter").expect("a layer");
    // With one subscriber alone, tracing asks that of the thread that is first at a place of the code: another test's
    // thread, which has none, would switch the place off for all.
    let _other = tracing::Dispatch::new(Registry::default());
    // The whole test is one thread, and so are the servers it starts.
    let _subscriber = tracing::subscriber::set_default(Registry::default().with(layer));

    let engine = Engine::start(Script::Json).await;
    let prefill = MetricsServer::start(Manner::Proper, vllm_page(0, 0, 0.0)).await;
    let directory = tempfile::tempdir().expect("a directory");
    let list = directory.path().join("endpoints.yaml");
    let members = [("p", prefill.address, "prefill"), ("d", engine.address, "decode")];
    let entries = members.map(|(name, address, role)| {
        let (address, port) = (address.ip(), address.port());
        format!("- {{name: {name}, address: {address}, port: '{port}', labels: {{llm-d.ai/role: {role}}}}}\n")
    });
    std::fs::write(&list, format!("endpoints:\n{}", entries.concat())).expect("written");
    let config = directory.path().join("config.yaml");
    let text_of = DISAGGREGATED.replace("ENDPOINTS", &list.display().to_string());
    std::fs::write(&config, format!("{HEAD}{text_of}")).expect("written");
    let port = proxy_port();
    let role = Role::start(format!(
        "{PORTS} --secure-serving=false --config-file={} --proxy-port={port} --drain-timeout=0s",
        config.display()
    ))
    .await;

    // By ext-proc, sampled by the client.
    let mut call = Call::open(Role::channel(role.addresses.grpc.port()).await).await;
    call.request(
        &[("traceparent", &traceparent(true)), ("x-request-id", "r-1")],
        &[CHAT],
    )
    .await;
    let to_engine = call.forwarded().await.set("traceparent").expect("a context");
    call.send(response_head(&[
        (":status", "200"),
        ("content-type", "application/json"),
    ]))
    .await;
    call.answer().await;
    call.send(response_body(b"{}", true)).await;
    call.response_chunk().await;
    drop(call);
    // By the built-in proxy, sampled, and not sampled.
    let proxy = role.addresses.proxy.expect("a proxy");
    let body = String::from_utf8(CHAT.to_vec()).expect("text");
    for sampled in [true, false] {
        let header = traceparent(sampled);
        let request = post("/v1/chat/completions", &[("traceparent", &header)], &body);
        drop(text(send_to(proxy, request).await).await);
    }
    let by_proxy: Vec<String> = engine
        .received()
        .iter()
        .map(|received| received.header("traceparent").expect("a context").to_owned())
        .collect();

    // Dropping flushes, and waits for the collector, which is on this thread.
    let flushed = tokio::task::spawn_blocking(move || drop(export));
    until_async(async || (roots(&spans).len() >= 2).then_some(())).await;
    flushed.await.expect("flushed");
    role.running.abort();

    let roots = roots(&spans);
    assert_eq!(roots.len(), 2, "the third was not sampled: {roots:?}");
    for root in &roots {
        assert_eq!(
            (root.trace.as_str(), root.parent.as_str()),
            (CLIENT_TRACE, CLIENT_SPAN)
        );
        assert_eq!(root.kind, SERVER);
    }
    let continues = |header: &str| {
        let ids = roots
            .iter()
            .map(|root| format!("00-{CLIENT_TRACE}-{}-01", root.id));
        ids.into_iter().any(|id| id == header)
    };
    assert!(
        continues(&to_engine) && continues(&by_proxy[0]),
        "{to_engine} {by_proxy:?}"
    );
    assert!(by_proxy[1].starts_with(&format!("00-{CLIENT_TRACE}-")) && by_proxy[1].ends_with("-00"));
    for root in roots {
        told(&spans.all(), &root, members.map(|(_, address, _)| address));
    }
}

fn roots(spans: &Spans) -> Vec<Seen> {
    let all = spans.all().into_iter();
    all.filter(|span| span.name == "gateway.request").collect()
}

/// The steps below one request.
fn told(all: &[Seen], root: &Seen, [prefill, _]: [std::net::SocketAddr; 2]) {
    let under = |parent: &Seen, name: &str| -> Vec<Seen> {
        let children = all
            .iter()
            .filter(|span| span.parent == parent.id && span.name == name);
        children.cloned().collect()
    };
    let orchestration = under(root, "gateway.request_orchestration").remove(0);
    assert_eq!(orchestration.attributes["target_model"], "m");
    assert_eq!(orchestration.attributes["request_prio"], "0");

    let decisions: Vec<String> = under(&orchestration, "pick_disagg_profile")
        .iter()
        .map(|span| span.attributes["llm_d.epp.profile_handler.decision"].clone())
        .collect();
    assert_eq!(decisions, ["run_decode", "run_prefill"]);
    let profiles = under(&orchestration, "run_scheduler_profile");
    let names: Vec<&str> = profiles
        .iter()
        .map(|profile| &*profile.attributes["llm_d.epp.scheduling.profile.name"])
        .collect();
    assert_eq!(names, ["decode", "prefill"]);

    let decode = &profiles[0];
    let filters = under(decode, "filter_endpoints").remove(0);
    assert_eq!(filters.attributes["llm_d.epp.filter.candidate_endpoints"], "2");
    assert_eq!(filters.attributes["llm_d.epp.filter.filtered_endpoints"], "1");
    assert_eq!(filters.attributes["gen_ai.request.model"], "m");
    assert!(!filters.attributes["gen_ai.request.id"].is_empty());
    let scoring = under(decode, "llm_d.epp.scoring").remove(0);
    assert_eq!(scoring.attributes["llm_d.epp.scorer.count"], "1");
    assert_eq!(scoring.attributes["llm_d.epp.scoring.candidate_endpoints"], "1");
    let scorer = under(&scoring, "llm_d.epp.scorer.active-request-scorer").remove(0);
    for (key, value) in [
        ("type", "active-request-scorer"),
        ("name", "load"),
        ("weight", "2"),
        ("candidate_endpoints", "1"),
        ("endpoints_scored", "1"),
    ] {
        assert_eq!(
            scorer.attributes[&format!("llm_d.epp.scorer.{key}")],
            value,
            "{key}"
        );
    }
    assert!(scorer.attributes.contains_key("llm_d.epp.scorer.score.max"));
    assert!(scorer.attributes.contains_key("llm_d.epp.scorer.score.avg"));
    let picker = under(decode, "pick_endpoints").remove(0);
    assert_eq!(picker.attributes["llm_d.epp.picker.candidate_endpoints"], "1");
    assert_eq!(
        picker.attributes["llm_d.epp.picker.top_endpoints"],
        r#"["default/d"]"#
    );
    assert!(picker.attributes["llm_d.epp.picker.top_scores"].starts_with('['));

    let prepared = under(&orchestration, "prepare_disaggregation").remove(0);
    assert_eq!(prepared.attributes["llm_d.epp.pd.disaggregation_used"], "true");
    assert_eq!(
        prepared.attributes["llm_d.epp.pd.prefill_pod_address"],
        prefill.ip().to_string()
    );
    assert_eq!(
        prepared.attributes["llm_d.epp.pd.prefill_pod_port"],
        prefill.port().to_string()
    );
    assert_eq!(
        prepared.attributes["llm_d.epp.encode.disaggregation_used"],
        "false"
    );
    // No prompt, and nothing that a client wrote but the model and the id.
    let all = all.iter().flat_map(|span| span.attributes.values());
    assert!(all.into_iter().all(|value| !value.contains("hi\"")));
}
