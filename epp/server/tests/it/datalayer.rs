//! The data layer against real metrics servers.

mod adaptive;
mod others;
mod tls;

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use llmd_epp::datalayer::{COALESCE, DataLayer, Options, Source};
use llmd_epp_api::{EndpointName, SlotTable, Snapshot};
use llmd_epp_core::plugins::datalayer::core_metrics_extractor::{CoreMetricsExtractor, ENGINE_LABEL};
use llmd_epp_core::plugins::datalayer::metrics_data_source::SOURCE;
use llmd_epp_core::plugins::datalayer::polled::PolledSource;
use llmd_epp_core::plugins::datalayer::reader::PageReader;
use prometheus::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::metrics_server::{Manner, MetricsServer, spec, vllm_page};
use crate::wait::{until, until_true};

fn source(yaml: &str) -> Source {
    let parameters = serde_yaml::from_str(yaml).expect("parameters");
    let extractor =
        CoreMetricsExtractor::new(&serde_yaml::from_str("{}").expect("defaults")).expect("built-in");
    Source::new(
        PolledSource::new(SOURCE, &parameters).expect("valid"),
        vec![Arc::new(PageReader::Metrics(extractor))],
    )
    .expect("TLS files")
}

struct Rig {
    layer: DataLayer,
    registry: Registry,
    /// Names of each announced set.
    announced: Arc<Mutex<Vec<Vec<String>>>>,
}

fn start(sources: Vec<Source>) -> Rig {
    start_fading(sources, None)
}

fn start_fading(sources: Vec<Source>, fresh_for: Option<Duration>) -> Rig {
    start_with(sources, fresh_for, false)
}

fn start_adaptive(sources: Vec<Source>) -> Rig {
    start_with(sources, None, true)
}

fn start_with(sources: Vec<Source>, fresh_for: Option<Duration>, adaptive: bool) -> Rig {
    let announced = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&announced);
    let registry = Registry::new();
    let options = Options {
        sources,
        refresh_interval: Duration::from_millis(50),
        adaptive,
        fresh_for,
        slots: Arc::new(SlotTable::default()),
        on_endpoints: Box::new(move |snapshot| seen.lock().expect("log").push(names(snapshot))),
        deprecated_metrics: true,
        runtime: tokio::runtime::Handle::current(),
    };
    Rig {
        layer: DataLayer::start(options, &registry).expect("registers"),
        registry,
        announced,
    }
}

pub(crate) fn names(snapshot: &Snapshot) -> Vec<String> {
    snapshot
        .endpoints
        .iter()
        .map(|endpoint| endpoint.name().name.to_string())
        .collect()
}

impl Rig {
    fn index(&self, name: &str) -> usize {
        let names = names(&self.layer.snapshot());
        names.iter().position(|have| have == name).expect("a member")
    }

    fn scraped(&self, name: &str) -> Option<Instant> {
        self.layer.snapshot().updated[self.index(name)]
    }

    fn counter(&self, name: &str, label: &str) -> u64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        let of_label =
            |metric: &&prometheus::proto::Metric| metric.get_label().iter().any(|have| have.value() == label);
        let value = family.and_then(|family| {
            family
                .get_metric()
                .iter()
                .find(of_label)
                .map(|m| m.get_counter().get_value())
        });
        value.unwrap_or(0.0) as u64
    }
}

#[tokio::test]
async fn scraped_values_reach_the_snapshot_over_one_connection() {
    let server = MetricsServer::proper().await;
    let rig = start(vec![source("{}")]);
    rig.layer.set_endpoints(vec![server.spec("a")]);
    until_true("five polls", || server.requests() >= 5).await;
    let snapshot = until("a scraped snapshot", || {
        Some(rig.layer.snapshot()).filter(|s| s.updated[0].is_some())
    })
    .await;
    assert_eq!(
        (
            snapshot.waiting[0],
            snapshot.running[0],
            snapshot.records[0].cache_num_blocks
        ),
        (1, 2, 100)
    );
    assert!((snapshot.kv_usage[0] - 0.5).abs() < 1e-12);
    server.set_page(vllm_page(7, 0, 0.25));
    until_true("the new value", || rig.layer.snapshot().waiting[0] == 7).await;
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn misbehaving_engines_are_counted_and_disturb_nobody() {
    let page = vllm_page(3, 0, 0.0);
    let manners = [
        ("chunked", Manner::Chunked),
        ("closing", Manner::CloseEachTime),
        ("half", Manner::HalfPage),
        ("huge", Manner::Huge),
        ("proper", Manner::Proper),
        ("silent", Manner::Silent),
        ("status", Manner::Status(500)),
    ];
    let mut servers = Vec::new();
    for (name, manner) in manners {
        servers.push((name, MetricsServer::start(manner, page.clone()).await));
    }
    let rig = start(vec![source("{}")]);
    rig.layer
        .set_endpoints(servers.iter().map(|(name, server)| server.spec(name)).collect());
    for (name, server) in &servers {
        let good = ["chunked", "closing", "proper"].contains(name);
        if good {
            until_true(name, || rig.scraped(name).is_some()).await;
            until_true(name, || server.requests() >= 3).await;
            assert_eq!(rig.layer.snapshot().waiting[rig.index(name)], 3);
        }
    }
    let words = [
        ("half", "the connection broke"),
        ("huge", "larger than"),
        ("silent", "no complete page within 1s"),
        ("status", "status 500"),
    ];
    for (name, word) in words {
        let error = until(name, || {
            rig.layer.status(Instant::now())[rig.index(name)]
                .last_error
                .clone()
        })
        .await;
        assert!(error.contains(word), "{name}: {error}");
        assert_eq!(rig.scraped(name), None, "{name}");
    }
    let polls = "llm_d_epp_datalayer_poll_errors_total";
    assert!(rig.counter(polls, "metrics-data-source") >= 4);
    let twin = "llm_d_inference_scheduler_datalayer_poll_errors_total";
    assert!(rig.counter(twin, "metrics-data-source") >= 4);
    assert_eq!(
        rig.counter(
            "llm_d_epp_datalayer_extract_errors_total",
            "core-metrics-extractor"
        ),
        0
    );
    let status = servers
        .iter()
        .find(|(name, _)| *name == "status")
        .map(|(_, server)| server.connections());
    assert_eq!(status, Some(1), "an error status keeps the connection");
}

#[tokio::test]
async fn missing_families_are_extract_errors_and_the_rest_counts() {
    let server = MetricsServer::start(
        Manner::Proper,
        "# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting 9\n".to_owned(),
    )
    .await;
    let rig = start(vec![source("{}")]);
    rig.layer.set_endpoints(vec![server.spec("a")]);
    until_true("scraped", || rig.scraped("a").is_some()).await;
    assert_eq!(rig.layer.snapshot().waiting[0], 9);
    assert!(
        rig.counter(
            "llm_d_epp_datalayer_extract_errors_total",
            "core-metrics-extractor"
        ) >= 1
    );
    let status = &rig.layer.status(Instant::now())[0];
    assert_eq!((status.ejected, status.engine_type.as_str()), (false, "vllm"));
    assert!(
        status
            .last_error
            .as_deref()
            .is_some_and(|error| error.contains("runningRequestsSpec"))
    );
}

#[tokio::test]
async fn the_engine_label_selects_the_names() {
    let page = "# TYPE sglang:num_queue_reqs gauge\nsglang:num_queue_reqs 6\n";
    let server = MetricsServer::start(Manner::Proper, page.to_owned()).await;
    let rig = start(vec![source("{}")]);
    let mut labelled = server.spec("a");
    labelled
        .labels
        .insert(ENGINE_LABEL.to_owned(), "sglang".to_owned());
    rig.layer.set_endpoints(vec![labelled]);
    until_true("scraped", || rig.layer.snapshot().waiting[0] == 6).await;
}

#[tokio::test]
async fn a_dead_engine_keeps_its_last_values_with_their_age_and_is_left_out_by_the_proxy() {
    let (mut dying, other) = (MetricsServer::proper().await, MetricsServer::proper().await);
    let rig = start(vec![source("{}")]);
    rig.layer
        .set_endpoints(vec![dying.spec("dying"), other.spec("other")]);
    until_true("both scraped", || {
        rig.layer.snapshot().updated.iter().all(Option::is_some)
    })
    .await;
    assert!(
        Arc::ptr_eq(&rig.layer.snapshot(), &rig.layer.routable()),
        "one object while nobody is ejected"
    );

    dying.kill().await;
    until_true("ejected", || names(&rig.layer.routable()) == ["other"]).await;
    let last = rig.scraped("dying").expect("still known");
    assert_eq!(
        names(&rig.layer.snapshot()),
        ["dying", "other"],
        "discovery decides what ext-proc sees"
    );
    until_true("other goes on", || rig.scraped("other") > Some(last)).await;
    assert_eq!(
        (rig.scraped("dying"), rig.layer.snapshot().waiting[0]),
        (Some(last), 1)
    );
    assert!(rig.layer.status(Instant::now())[0].ejected);

    dying.restart().await;
    until_true("back", || names(&rig.layer.routable()) == ["dying", "other"]).await;
    until_true("fresh", || rig.scraped("dying") > Some(last)).await;
}

#[tokio::test]
async fn when_nobody_can_be_reached_everybody_is_tried() {
    let (mut a, mut b) = (MetricsServer::proper().await, MetricsServer::proper().await);
    let rig = start(vec![source("{}")]);
    rig.layer.set_endpoints(vec![a.spec("a"), b.spec("b")]);
    a.kill().await;
    until_true("a is out", || names(&rig.layer.routable()) == ["b"]).await;
    b.kill().await;
    until_true("both are out", || {
        rig.layer.status(Instant::now()).iter().all(|line| line.ejected)
    })
    .await;
    assert_eq!(names(&rig.layer.routable()), ["a", "b"]);
}

#[tokio::test]
async fn a_reported_endpoint_is_left_out_until_it_is_seen_alive() {
    let (a, b) = (MetricsServer::proper().await, MetricsServer::proper().await);
    let rig = start(vec![source("{}")]);
    rig.layer.set_endpoints(vec![a.spec("a"), b.spec("b")]);
    rig.layer
        .report_unreachable(&EndpointName::new("default", "a"), Instant::now());
    assert_eq!(names(&rig.layer.routable()), ["b"], "at once");
    until_true("the next poll brings it back", || {
        names(&rig.layer.routable()) == ["a", "b"]
    })
    .await;
    // Somebody who left is nobody.
    rig.layer
        .report_unreachable(&EndpointName::new("default", "x"), Instant::now());
}

#[tokio::test]
async fn the_last_endpoint_of_a_role_is_never_left_out() {
    let rig = start(Vec::new());
    let of_role = |name: &str, port: u16, role: &str| {
        let mut spec = spec(name, port);
        spec.labels.insert("llm-d.ai/role".to_owned(), role.to_owned());
        spec
    };
    rig.layer.set_endpoints(vec![
        of_role("a", 1, "decode"),
        of_role("b", 2, "decode"),
        of_role("c", 3, "prefill"),
    ]);
    let lose = |name: &str| {
        rig.layer
            .report_unreachable(&EndpointName::new("default", name), Instant::now());
        names(&rig.layer.routable())
    };
    assert_eq!(lose("a"), ["b", "c"]);
    assert_eq!(lose("b"), ["a", "b", "c"], "a prefill engine is no decode engine");
    assert_eq!(lose("c"), ["a", "b", "c"]);
}

#[tokio::test]
async fn an_endpoint_that_nothing_polls_returns_after_its_back_off() {
    let rig = start(Vec::new());
    rig.layer.set_endpoints(vec![spec("a", 1), spec("b", 2)]);
    rig.layer
        .report_unreachable(&EndpointName::new("default", "a"), Instant::now());
    assert_eq!(names(&rig.layer.routable()), ["b"]);
    until_true("time is up", || names(&rig.layer.routable()) == ["a", "b"]).await;
    rig.layer
        .report_unreachable(&EndpointName::new("default", "a"), Instant::now());
    rig.layer.report_answered(&EndpointName::new("default", "a"));
    assert_eq!(names(&rig.layer.routable()), ["a", "b"]);
}

#[tokio::test]
async fn sets_are_published_at_once_ordered_and_slots_are_stable() {
    let rig = start(Vec::new());
    rig.layer.set_endpoints(vec![spec("b", 2), spec("a", 1)]);
    let first = rig.layer.snapshot();
    assert_eq!(names(&first), ["a", "b"]);
    let slots: Vec<_> = first
        .endpoints
        .iter()
        .map(|endpoint| endpoint.slot().id())
        .collect();

    rig.layer.set_endpoints(vec![spec("a", 1), spec("b", 2)]);
    assert!(
        Arc::ptr_eq(&first, &rig.layer.snapshot()),
        "the same set is no news"
    );

    let held = first.endpoints[1].slot().reserve(10);
    rig.layer.set_endpoints(vec![spec("b", 9), spec("c", 3)]);
    let second = rig.layer.snapshot();
    assert_eq!(names(&second), ["b", "c"]);
    assert!(second.version > first.version);
    assert_eq!(second.endpoints[0].target().as_ref(), "127.0.0.1:9");
    assert_eq!(
        (
            second.endpoints[0].slot().id(),
            second.endpoints[0].slot().requests()
        ),
        (slots[1], 1)
    );
    drop(held);

    rig.layer
        .set_endpoints(vec![spec("b", 9), spec("c", 3), spec("d", 4)]);
    let third = rig.layer.snapshot();
    assert_eq!(
        third.endpoints[2].slot().id().index,
        slots[0].index,
        "the slot of a is free again"
    );
    assert_ne!(third.endpoints[2].slot().id(), slots[0]);
    rig.layer.set_endpoints(Vec::new());
    assert!(rig.layer.snapshot().is_empty() && rig.layer.routable().is_empty());
    let expected: [&[&str]; 4] = [&["a", "b"], &["b", "c"], &["b", "c", "d"], &[]];
    assert_eq!(*rig.announced.lock().expect("log"), expected);
}

#[tokio::test]
async fn many_polls_make_few_snapshots() {
    let server = MetricsServer::proper().await;
    let rig = start(vec![source("{}")]);
    let began = Instant::now();
    rig.layer.set_endpoints(
        (0..50)
            .map(|index| server.spec(&format!("e{index:02}")))
            .collect(),
    );
    until_true("many polls", || server.requests() >= 1000).await;
    let most = began.elapsed().as_millis() / COALESCE.as_millis() + 3;
    let version = rig.layer.snapshot().version;
    assert!(u128::from(version) <= most, "{version} snapshots, {most} allowed");
}

#[tokio::test]
async fn collectors_of_gone_endpoints_stop() {
    let (gone, stays) = (MetricsServer::proper().await, MetricsServer::proper().await);
    let rig = start(vec![source("{}")]);
    rig.layer
        .set_endpoints(vec![gone.spec("gone"), stays.spec("stays")]);
    until_true("polled", || gone.requests() > 0).await;
    rig.layer.set_endpoints(vec![stays.spec("stays")]);
    let (before, others) = (gone.requests(), stays.requests());
    until_true("the other one goes on", || stays.requests() >= others + 10).await;
    assert!(
        gone.requests() <= before + 1,
        "at most the poll that was under way"
    );
}

#[tokio::test]
async fn another_port_and_path_can_be_polled() {
    let server = MetricsServer::proper().await;
    let rig = start(vec![source(&format!(
        "{{port: {}, path: /m, interval: 100ms}}",
        server.address.port()
    ))]);
    rig.layer.set_endpoints(vec![spec("a", 1)]);
    until_true("scraped", || rig.scraped("a").is_some()).await;
    assert!(
        !rig.layer.status(Instant::now())[0].ejected,
        "the metrics port says nothing about port 1"
    );
}

#[tokio::test]
async fn the_endpoints_page_tells_the_state_of_each() {
    let server = MetricsServer::proper().await;
    let rig = start(vec![source("{}")]);
    let mut labelled = server.spec("a");
    labelled.labels.insert("app".to_owned(), "x".to_owned());
    rig.layer.set_endpoints(vec![labelled]);
    until_true("scraped", || rig.scraped("a").is_some()).await;
    let _held = rig.layer.snapshot().endpoints[0].slot().reserve(25);

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("binds");
    let address = listener.local_addr().expect("address");
    let router = llmd_epp::debug::router(rig.layer.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let mut client = TcpStream::connect(address).await.expect("connects");
    let request = b"GET /debug/endpoints HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    client.write_all(request).await.expect("sent");
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.expect("answered");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let page: serde_json::Value = serde_json::from_str(body).expect("JSON");
    let line = &page["endpoints"][0];
    assert_eq!(line["name"], "default/a");
    assert_eq!(line["target"], server.address.to_string());
    assert_eq!(line["labels"]["app"], "x");
    assert_eq!((&line["waiting"], &line["running"]), (&1.into(), &2.into()));
    assert_eq!(
        (&line["inFlightRequests"], &line["inFlightTokens"]),
        (&1.into(), &25.into())
    );
    assert_eq!(
        (&line["kvCacheUsage"], &line["ejected"]),
        (&0.5.into(), &false.into())
    );
    assert_eq!(
        (&line["engineType"], &line["errors"]),
        (&"vllm".into(), &0.into())
    );
    assert!(line["metricsAgeMs"].is_u64() && line["prefixHitRate"].is_null());
}

#[tokio::test]
async fn what_an_engine_said_last_fades_to_what_the_others_say() {
    let mut dying = MetricsServer::start(Manner::Proper, vllm_page(10, 4, 0.8)).await;
    let living = MetricsServer::start(Manner::Proper, vllm_page(2, 2, 0.2)).await;
    let rig = start_fading(vec![source("{}")], Some(Duration::from_millis(200)));
    let members = [("dying", &dying), ("living", &living)];
    let specs = members.map(|(name, server)| spec(name, server.address.port()));
    rig.layer.set_endpoints(specs.to_vec());
    let waiting = |name: &str| rig.layer.snapshot().waiting[rig.index(name)];
    until_true("both are read", || {
        (waiting("dying"), waiting("living")) == (10, 2)
    })
    .await;
    dying.kill().await;
    until_true("half the way", || (3..10).contains(&waiting("dying"))).await;
    let index = rig.index("dying");
    let cache = || rig.layer.snapshot().kv_usage[index];
    until_true("as the other one", || (cache() - 0.2).abs() < 1e-9).await;
    let snapshot = rig.layer.snapshot();
    assert_eq!(snapshot.waiting[index], 2);
    assert_eq!(
        snapshot.records[index].waiting_queue_size, 10,
        "what was read stays"
    );
    assert_eq!(snapshot.len(), 2, "nobody is switched off");
}
