//! The built-in proxy from client to engine, with engines that die.

mod access_log;
mod continuation;
mod encodings;
mod engines;
mod gathering;
mod headers;
mod models;
mod outliers;
pub(crate) mod rig;
mod tls;
mod websocket;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http_body_util::BodyExt;
use llmd_epp::builtin_proxy::ApiKeys;
use llmd_epp::datalayer::{DataLayer, Options, sources};
use llmd_epp::discovery::file;
use llmd_epp_api::SlotTable;
use llmd_epp_core::config::{BuildEnv, EndpointPickerConfig, assemble};
use prometheus::Registry;
use tokio::net::TcpListener;

use crate::datalayer::names;
use crate::engine::{Engine, Script};
use crate::metrics_server::spec;
use crate::wait::until_true;
use rig::{post, rig, scraping, serve, start, text};

const CHAT: &str =
    r#"{ "n":12345678901234567890, "model" : "m","messages":[{"role":"user","content":"h\u0069 \/"}] }"#;

#[tokio::test]
async fn a_request_arrives_byte_for_byte_with_its_routing_headers() {
    let engine = Engine::start(Script::Json).await;
    let rig = rig(&[&engine]).await;
    let forged = [
        ("x-prefiller-host-port", "203.0.113.1:1"),
        ("x-gateway-destination-endpoint", "203.0.113.1:1"),
        ("x-gateway-destination-endpoint-subset", "203.0.113.1:1"),
        ("x-custom", "kept"),
        ("authorization", "Bearer engine-key"),
    ];
    let answer = rig.send(post("/v1/chat/completions?x=1", &forged, CHAT)).await;
    assert_eq!(answer.status(), 200);
    let length = answer.headers().get("content-length").cloned();
    let body = text(answer).await;
    assert!(body.contains(r#""model":"m""#), "{body}");
    assert_eq!(
        length.expect("unchanged answers keep their length"),
        body.len().to_string()
    );

    let received = &engine.received()[0];
    assert!(
        received
            .head
            .starts_with("POST /v1/chat/completions?x=1 HTTP/1.1\r\n"),
        "{}",
        received.head
    );
    assert_eq!(received.body, CHAT.as_bytes());
    assert_eq!(
        received.header("x-gateway-destination-endpoint"),
        Some(engine.address.to_string().as_str())
    );
    assert_eq!(
        (received.header("x-custom"), received.header("authorization")),
        (Some("kept"), Some("Bearer engine-key"))
    );
    assert_eq!(received.header("x-prefiller-host-port"), None);
    assert_eq!(received.header("x-gateway-destination-endpoint-subset"), None);
    assert!(
        received.header("x-request-id").is_some_and(|id| id.len() == 36),
        "{}",
        received.head
    );
    rig.all_load_is_given_back().await;
}

#[tokio::test]
async fn a_model_rewrite_is_a_splice_and_the_answer_names_the_first_model() {
    let engine = Engine::start(Script::Json).await;
    let rig = rig(&[&engine]).await;
    let headers = [
        ("x-llm-d-model-name-rewrite", "a-much-longer-name"),
        ("x-request-id", "mine"),
    ];
    let answer = rig.send(post("/v1/chat/completions", &headers, CHAT)).await;
    let body = text(answer).await;
    assert!(body.contains(r#""model":"m""#) && body.ends_with("}}"), "{body}");
    let received = &engine.received()[0];
    assert_eq!(
        received.body,
        CHAT.replace(r#""m""#, r#""a-much-longer-name""#).as_bytes()
    );
    assert_eq!(received.header("x-request-id"), Some("mine"));
}

#[tokio::test]
async fn events_stream_through_one_by_one() {
    let engine = Engine::start(Script::Events(3)).await;
    let rig = rig(&[&engine]).await;
    engine.release();
    let mut answer = rig.chat(&CHAT.replace(" }", r#","stream":true}"#)).await;
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    for number in 0..3 {
        let frame = answer
            .body_mut()
            .frame()
            .await
            .expect("an event")
            .expect("unbroken");
        let event = String::from_utf8(frame.into_data().expect("data").to_vec()).expect("UTF-8");
        assert_eq!(event, format!("data: {{\"n\":{number},\"model\":\"m\"}}\n\n"));
        if number < 2 {
            // The engine waits for the next release, so the request cannot be over.
            assert_eq!(rig.layer.snapshot().endpoints[0].slot().requests(), 1);
            engine.release();
        }
    }
    assert_eq!(text(answer).await, "data: [DONE]\n\n");
    rig.all_load_is_given_back().await;
}

#[tokio::test]
async fn a_killed_engine_costs_no_request_and_comes_back() {
    let mut dying = Engine::start(Script::Json).await;
    let other = Engine::start(Script::Json).await;
    let rig = rig(&[&dying, &other]).await;
    assert_eq!(rig.chat(CHAT).await.status(), 200);
    assert_eq!(dying.received().len(), 1, "the first of equals");
    dying.kill().await;
    for _ in 0..20 {
        assert_eq!(rig.chat(CHAT).await.status(), 200);
    }
    assert_eq!((dying.received().len(), other.received().len()), (1, 20));
    until_true("ejected", || names(&rig.layer.routable()) == ["engine-1"]).await;
    dying.restart().await;
    until_true("back", || {
        names(&rig.layer.routable()) == ["engine-0", "engine-1"]
    })
    .await;
    assert_eq!(rig.chat(CHAT).await.status(), 200);
    assert_eq!(dying.received().len(), 2);
    rig.all_load_is_given_back().await;
}

#[tokio::test]
async fn concurrent_requests_survive_a_kill_before_their_first_byte() {
    let mut dying = Engine::start(Script::Events(1)).await;
    let other = Engine::start(Script::Json).await;
    let rig = Arc::new(rig(&[&dying, &other]).await);
    let requests: Vec<_> = (0..20)
        .map(|_| {
            let rig = Arc::clone(&rig);
            tokio::spawn(async move {
                let answer = rig.chat(CHAT).await;
                (answer.status().as_u16(), text(answer).await)
            })
        })
        .collect();
    // Each of these has its request read and its head sent, but no chunk yet.
    until_true("some are held", || dying.received().len() >= 3).await;
    dying.kill().await;
    for request in requests {
        let (status, body) = request.await.expect("no panic");
        assert_eq!(status, 200, "{body}");
        assert!(body.contains("\"usage\""), "{body}");
    }
    rig.all_load_is_given_back().await;
}

#[tokio::test]
async fn an_engine_that_dies_before_its_answer_is_replaced() {
    let broken = Engine::start(Script::DieBeforeHead).await;
    let good = Engine::start(Script::Json).await;
    let rig = rig(&[&broken, &good]).await;
    let answer = rig.chat(CHAT).await;
    assert_eq!(answer.status(), 200);
    assert!(text(answer).await.contains("\"usage\""));
    let second = &good.received()[0];
    assert_eq!(second.body, CHAT.as_bytes());
    let target = good.address.to_string();
    assert_eq!(
        second.header("x-gateway-destination-endpoint"),
        Some(target.as_str()),
        "named anew"
    );
    rig.all_load_is_given_back().await;
}

#[tokio::test]
async fn a_stream_that_breaks_ends_with_one_error_event() {
    let engine = Engine::start(Script::DieAfterFirstEvent).await;
    let rig = rig(&[&engine]).await;
    let answer = rig.chat(&CHAT.replace(" }", r#","stream":true}"#)).await;
    let body = text(answer).await;
    let events: Vec<&str> = body.split("\n\n").filter(|event| !event.is_empty()).collect();
    assert_eq!((events.len(), events[0]), (2, "data: {\"n\":0}"), "{body}");
    let error: serde_json::Value =
        serde_json::from_str(events[1].trim_start_matches("data: ")).expect("JSON");
    assert!(error["error"]["message"].is_string(), "{body}");
    rig.all_load_is_given_back().await;
}

#[tokio::test]
async fn without_another_engine_the_error_names_the_cause() {
    let rig = start(&[], None, Vec::new()).await;
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("binds")
        .local_addr()
        .expect("address");
    rig.layer.set_endpoints(vec![spec("gone", closed.port())]);
    let answer = rig.chat(CHAT).await;
    assert_eq!(answer.status(), 502);
    let body: serde_json::Value = serde_json::from_str(&text(answer).await).expect("JSON");
    let message = body["error"]["message"].as_str().expect("a message");
    assert!(message.contains(&closed.to_string()), "{message}");
    assert_eq!(
        names(&rig.layer.routable()),
        ["gone"],
        "the last one is never left out"
    );
    rig.all_load_is_given_back().await;
}

#[tokio::test]
async fn rejections_are_openai_errors_with_the_drop_reason() {
    let rig = rig(&[]).await;
    let answer = rig.chat(CHAT).await;
    assert_eq!(answer.status(), 503);
    assert_eq!(
        answer.headers()["x-llm-d-request-dropped-reason"],
        "rejected-no-endpoints"
    );
    assert_eq!(
        (
            &answer.headers()["retry-after"],
            &answer.headers()["content-type"]
        ),
        (
            &"1".parse().expect("value"),
            &"application/json".parse().expect("value")
        )
    );
    let body: serde_json::Value = serde_json::from_str(&text(answer).await).expect("JSON");
    assert_eq!(
        body["error"]["message"],
        "failed to find endpoint candidates for serving the request"
    );

    let cases = [
        (
            r#"{"messages":[{"role":"user","content":"x"}]}"#,
            "model not found in request body",
        ),
        (
            r#"{"model":"m","messages":[}"#,
            "error unmarshaling request bodyMap",
        ),
        (r#"{"model":"m"}"#, "must have valid messages field"),
    ];
    for (body, expected) in cases {
        let answer = rig.chat(body).await;
        let status = answer.status();
        let body: BTreeMap<String, serde_json::Value> =
            serde_json::from_str(&text(answer).await).expect("JSON");
        let message = body["error"]["message"].as_str().expect("a message");
        assert_eq!(status, 400, "{message}");
        assert!(message.contains(expected), "{message}");
        assert_eq!(body["error"]["type"], "invalid_request_error");
    }
}

#[tokio::test]
async fn other_paths_go_to_an_engine_and_health_is_answered_here() {
    let engine = Engine::start(Script::Json).await;
    let rig = rig(&[&engine]).await;
    assert_eq!(rig.get("/v1/models").await.0, 200);
    assert_eq!(rig.get("/version?full=1").await.0, 200);
    assert_eq!(rig.get("/health").await, (200, r#"{"status":"ok"}"#.to_owned()));
    rig.ready.store(false, Ordering::Relaxed);
    assert_eq!(rig.get("/health").await.0, 503);
    let received = engine.received();
    assert_eq!(received.len(), 2, "health never reaches an engine");
    assert!(
        received[0].head.starts_with("GET /v1/models ")
            && received[1].head.starts_with("GET /version?full=1 ")
    );
    rig.all_load_is_given_back().await;
}

#[tokio::test]
async fn api_keys_keep_strangers_out_and_stay_here() {
    let engine = Engine::start(Script::Json).await;
    let file = tempfile::NamedTempFile::new().expect("file");
    std::fs::write(file.path(), "sk-secret\n").expect("written");
    let rig = start(
        &[&engine],
        Some(ApiKeys::read(file.path()).expect("keys")),
        scraping(),
    )
    .await;
    for headers in [&[][..], &[("authorization", "Bearer sk-wrong")]] {
        let answer = rig.send(post("/v1/chat/completions", headers, CHAT)).await;
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["www-authenticate"]),
            (401, &"Bearer".parse().expect("value"))
        );
        assert!(!text(answer).await.contains("sk-"));
    }
    let headers = [("authorization", "Bearer sk-secret")];
    let answer = rig.send(post("/v1/chat/completions", &headers, CHAT)).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(rig.get("/health").await.0, 200, "probes have no key");
    let received = engine.received();
    assert_eq!((received.len(), received[0].header("authorization")), (1, None));
}

#[tokio::test]
async fn a_client_that_goes_away_frees_its_engine_and_its_load() {
    let engine = Engine::start(Script::Events(5)).await;
    let rig = start(&[&engine], None, Vec::new()).await;
    engine.release();
    let mut answer = rig.chat(CHAT).await;
    answer
        .body_mut()
        .frame()
        .await
        .expect("an event")
        .expect("unbroken");
    assert_eq!(
        (
            engine.open_connections(),
            rig.layer.snapshot().endpoints[0].slot().requests()
        ),
        (1, 1)
    );
    drop(answer);
    rig.all_load_is_given_back().await;
    until_true("the engine is told", || engine.open_connections() == 0).await;
}

#[tokio::test]
async fn a_configuration_with_file_discovery_routes_by_prefix_and_follows_the_file() {
    let engines = [
        Engine::start(Script::Json).await,
        Engine::start(Script::Json).await,
    ];
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("endpoints.yaml");
    let list = |engines: &[Engine]| {
        let line = |(index, engine): (usize, &Engine)| {
            format!(
                "- {{name: e{index}, address: 127.0.0.1, port: '{}'}}\n",
                engine.address.port()
            )
        };
        let lines: String = engines.iter().enumerate().map(line).collect();
        let beside = path.with_extension("new");
        std::fs::write(&beside, format!("endpoints:\n{lines}")).expect("written");
        std::fs::rename(beside, &path).expect("renamed");
    };
    list(&engines);
    let text = format!(
        "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: queue-scorer
- type: kv-cache-utilization-scorer
- type: prefix-cache-scorer
- {{type: file-discovery, parameters: {{path: {}, watchFile: true}}}}
schedulingProfiles:
- name: default
  plugins:
  - {{pluginRef: queue-scorer, weight: 2}}
  - {{pluginRef: kv-cache-utilization-scorer, weight: 2}}
  - {{pluginRef: prefix-cache-scorer, weight: 3}}
dataLayer: {{discovery: {{pluginRef: file-discovery}}}}
",
        path.display()
    );
    let decoded = EndpointPickerConfig::decode(&text).expect("decodes");
    let registry = Registry::new();
    let env = BuildEnv {
        registry: registry.clone(),
        ..BuildEnv::detached()
    };
    let assembly = assemble(&decoded.config, env).expect("assembles");
    let scheduler = Arc::new(assembly.scheduler);
    let observer = Arc::clone(&scheduler);
    let options = Options {
        sources: sources(&assembly.data_layer).expect("the injected default source"),
        refresh_interval: Duration::from_millis(50),
        adaptive: false,
        fresh_for: None,
        slots: Arc::new(SlotTable::default()),
        on_endpoints: Box::new(move |snapshot| observer.endpoints_changed(snapshot)),
        deprecated_metrics: false,
        runtime: tokio::runtime::Handle::current(),
    };
    let layer = DataLayer::start(options, &registry).expect("registers");
    let discovery = assembly.data_layer.discovery.expect("configured");
    let _following = file::start(&discovery, &layer).await.expect("starts");
    let rig = serve(layer, scheduler, &registry, None).await;
    until_true("scraped", || {
        rig.layer.snapshot().updated.iter().all(Option::is_some)
    })
    .await;

    let ask = async |subject: &str| {
        let body = serde_json::json!({
            "model": "m", "messages": [{"role": "user", "content": subject.repeat(400)}]
        });
        assert_eq!(rig.chat(&body.to_string()).await.status(), 200);
    };
    let counts = || engines.each_ref().map(|engine| engine.received().len());
    for _ in 0..8 {
        ask("same ").await;
    }
    let (few, many) = (counts().into_iter().min(), counts().into_iter().max());
    assert_eq!(
        (few, many),
        (Some(0), Some(8)),
        "a known prefix stays where it is"
    );
    for number in 0..16 {
        ask(&format!("other {number} ")).await;
    }
    assert!(
        counts().iter().all(|count| *count >= 4),
        "new prefixes spread: {:?}",
        counts()
    );

    list(&engines[1..]);
    until_true("the file is followed", || rig.layer.snapshot().len() == 1).await;
    let before = counts()[0];
    ask("same ").await;
    assert_eq!(counts()[0], before, "the first engine has left");
    rig.all_load_is_given_back().await;
}
