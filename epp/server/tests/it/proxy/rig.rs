//! A proxy over a data layer and engines, with a client.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use llmd_epp::builtin_proxy::{self, ApiKeys};
use llmd_epp::datalayer::{DataLayer, Options, Source};
use llmd_epp_api::{InferenceRequest, Metadata, Rejection, Reservation, ResponseEnd, SlotTable, Snapshot};
use llmd_epp_core::Epp;
use llmd_epp_core::exchange::{Held, Select, Selection};
use llmd_epp_core::parsers::Parsers;
use llmd_epp_core::plugins::datalayer::core_metrics_extractor::CoreMetricsExtractor;
use llmd_epp_core::plugins::datalayer::metrics_data_source::SOURCE;
use llmd_epp_core::plugins::datalayer::polled::PolledSource;
use llmd_epp_core::plugins::datalayer::reader::PageReader;
use llmd_epp_core::request_metrics::RequestMetrics;

use llmd_proxy::Limits;
use prometheus::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::engine::Engine;
use crate::wait::until_true;

/// Picks the first candidate with the least load.
struct LeastLoaded;

struct Load(Option<Reservation>);

impl Held for Load {
    fn on_first_chunk(&mut self, _now: Instant) {
        if let Some(reservation) = &mut self.0 {
            reservation.release_tokens();
        }
    }

    fn on_complete(&mut self, _now: Instant, _end: &ResponseEnd) -> Vec<Metadata> {
        self.0 = None;
        Vec::new()
    }

    fn scores(&self) -> Vec<(Arc<str>, f64)> {
        Vec::new()
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
        let load = |index: &&u32| snapshot.endpoints[**index as usize].slot().requests();
        let best = candidates
            .unwrap_or(&all)
            .iter()
            .min_by_key(load)
            .expect("a candidate");
        let endpoint = Arc::clone(&snapshot.endpoints[*best as usize]);
        let load = Load(Some(endpoint.slot().reserve(request.size_bytes as u64)));
        Ok(Selection::new(vec![endpoint], Box::new(load)))
    }
}

pub(crate) struct Rig {
    pub(crate) proxy: SocketAddr,
    pub(crate) layer: DataLayer,
    pub(crate) ready: Arc<AtomicBool>,
    pub(crate) registry: Registry,
    _stop: DropGuard,
}

pub(crate) async fn rig(engines: &[&Engine]) -> Rig {
    start(engines, None, scraping()).await
}

pub(crate) fn scraping() -> Vec<Source> {
    let extractor =
        CoreMetricsExtractor::new(&serde_yaml::from_str("{}").expect("defaults")).expect("built-in");
    let source = PolledSource::new(SOURCE, &serde_yaml::from_str("{}").expect("defaults")).expect("defaults");
    vec![Source::new(source, vec![Arc::new(PageReader::Metrics(extractor))]).expect("no TLS")]
}

pub(crate) async fn start(engines: &[&Engine], api_keys: Option<ApiKeys>, sources: Vec<Source>) -> Rig {
    let registry = Registry::new();
    let options = Options {
        sources,
        refresh_interval: Duration::from_millis(50),
        adaptive: false,
        fresh_for: None,
        slots: Arc::new(SlotTable::default()),
        on_endpoints: Box::new(|_| {}),
        deprecated_metrics: false,
        runtime: tokio::runtime::Handle::current(),
    };
    let layer = DataLayer::start(options, &registry).expect("registers");
    let named = engines
        .iter()
        .enumerate()
        .map(|(index, engine)| engine.spec(&format!("engine-{index}")));
    layer.set_endpoints(named.collect());
    serve(layer, Arc::new(LeastLoaded), &registry, api_keys).await
}

pub(crate) async fn serve(
    layer: DataLayer,
    scheduler: Arc<dyn Select>,
    registry: &Registry,
    api_keys: Option<ApiKeys>,
) -> Rig {
    let epp = Arc::new(Epp::new(
        scheduler,
        Parsers::default(),
        RequestMetrics::register(registry, false, "", "").expect("registers"),
        llmd_epp_core::exchange::Options::default(),
    ));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("binds");
    let proxy = listener.local_addr().expect("address");
    let ready = Arc::new(AtomicBool::new(true));
    let is_ready = Arc::clone(&ready);
    let options = builtin_proxy::Options {
        api_keys,
        continuations: Some(builtin_proxy::Continuations::register(registry).expect("registers")),
        waiting: None,
        limits: Limits::default(),
        tls: None,
        trusts_forwarded: false,
        engines: llmd_proxy::TargetProtocol::default(),
        access_log: None,
        tracing: false,
        is_ready: Arc::new(move || is_ready.load(Ordering::Relaxed)),
        closing: CancellationToken::new(),
    };
    let stop = CancellationToken::new();
    tokio::spawn(builtin_proxy::serve(
        listener,
        epp,
        layer.clone(),
        options,
        stop.clone(),
    ));
    Rig {
        proxy,
        layer,
        ready,
        registry: registry.clone(),
        _stop: stop.drop_guard(),
    }
}

impl Rig {
    /// Sends one request and returns the answer when its head is there.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        send_to(self.proxy, request).await
    }

    pub(crate) async fn chat(&self, body: &str) -> Response<Incoming> {
        self.send(post("/v1/chat/completions", &[], body)).await
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let request = Request::get(path)
            .header("host", "x")
            .body(Full::default())
            .expect("request");
        let answer = self.send(request).await;
        (answer.status().as_u16(), text(answer).await)
    }

    pub(crate) async fn all_load_is_given_back(&self) {
        let snapshot = self.layer.snapshot();
        let idle = || {
            snapshot
                .endpoints
                .iter()
                .all(|e| (e.slot().requests(), e.slot().tokens()) == (0, 0))
        };
        until_true("no load is left", idle).await;
    }
}

/// Sends one request over a connection of its own and returns the answer when its head is there.
pub(crate) async fn send_to(proxy: SocketAddr, request: Request<Full<Bytes>>) -> Response<Incoming> {
    let stream = TcpStream::connect(proxy).await.expect("connects");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("handshake");
    tokio::spawn(connection);
    sender.send_request(request).await.expect("an answer")
}

pub(crate) fn post(path: &str, headers: &[(&str, &str)], body: &str) -> Request<Full<Bytes>> {
    let mut request = Request::post(path)
        .header("host", "x")
        .header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::from(body.to_owned())).expect("request")
}

pub(crate) async fn text(answer: Response<Incoming>) -> String {
    let bytes = answer
        .into_body()
        .collect()
        .await
        .expect("a whole body")
        .to_bytes();
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}
