//! Requests that come while the pool is empty, over ext-proc and through the built-in proxy.

use std::net::SocketAddr;
use std::path::Path;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use llmd_epp::extproc::proto::{Answer, Event};
use tokio::net::TcpStream;

use crate::engine::{Engine, Script};
use crate::picker::{CHAT, Call, PATIENCE, head, request_body, trailers};
use crate::role::{PORTS, Role, proxy_port, until_async, write_config};

/// What clients of a role see, and what it says of them.
struct Site {
    role: Role,
    proxy: SocketAddr,
    directory: tempfile::TempDir,
}

/// Ours is the list of the file: `write_config` names engines that give out metrics.
fn list(directory: &Path, engines: &[&Engine]) {
    let entries = engines.iter().enumerate().map(|(index, engine)| {
        let (address, port) = (engine.address.ip(), engine.address.port());
        format!("{{name: engine-{index}, address: {address}, port: '{port}'}}")
    });
    let entries: Vec<String> = entries.collect();
    let text = format!("endpoints: [{}]\n", entries.join(", "));
    // Readers see the old list or the new one.
    let partial = directory.join("partial");
    std::fs::write(&partial, text).expect("written");
    std::fs::rename(partial, directory.join("endpoints.yaml")).expect("renamed");
}

async fn site(flags: &str) -> Site {
    let directory = tempfile::tempdir().expect("a directory");
    let config = write_config(directory.path(), &[]);
    list(directory.path(), &[]);
    let port = proxy_port();
    let role = Role::start(format!(
        "{PORTS} --secure-serving=false --pool-name=pool --config-file={config} --tracing=false \
         --proxy-bind-address=127.0.0.1 --proxy-port={port} {flags}"
    ))
    .await;
    let proxy = role.addresses.proxy.expect("a proxy");
    Site {
        role,
        proxy,
        directory,
    }
}

impl Site {
    async fn call(&self) -> Call {
        let mut call = Call::open(Role::channel(self.role.addresses.grpc.port()).await).await;
        call.request(&[], &[CHAT]).await;
        call
    }

    /// A chat through the proxy: status, drop reason and body.
    fn chat(&self) -> tokio::task::JoinHandle<(u16, String, String)> {
        tokio::spawn(send(self.proxy, "POST", Bytes::from_static(CHAT)))
    }

    async fn metric(&self, line: &str) {
        until_async(async || {
            let page = self.role.get("/metrics").await;
            page.lines().any(|have| have == line).then_some(())
        })
        .await;
    }

    async fn waiting(&self, requests: usize) {
        let labels = r#"fairness_id="default-flow",inference_pool="pool",model_name="m",priority="0",target_model_name="m""#;
        self.metric(&format!(
            "llm_d_epp_flow_control_queue_size{{{labels}}} {requests}"
        ))
        .await;
        let bytes = requests * CHAT.len();
        self.metric(&format!("llm_d_epp_flow_control_queue_bytes{{{labels}}} {bytes}"))
            .await;
    }

    async fn ended(&self, outcome: &str, requests: usize) {
        self.metric(&format!(
            r#"llm_d_epp_flow_control_requests_total{{inference_pool="pool",outcome="{outcome}",priority="0"}} {requests}"#
        ))
        .await;
    }
}

pub(crate) async fn send(proxy: SocketAddr, method: &'static str, body: Bytes) -> (u16, String, String) {
    let stream = TcpStream::connect(proxy).await.expect("connects");
    let (mut sender, connection) = http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream))
        .await
        .expect("HTTP");
    let _connection = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(async {
        // The answer tells.
        let _ = connection.await;
    }));
    let request = http::Request::builder()
        .method(method)
        .uri("/v1/chat/completions")
        .header("host", "localhost")
        .header("content-type", "application/json");
    let request = request.body(Full::new(body)).expect("a request");
    let answer = tokio::time::timeout(PATIENCE, sender.send_request(request))
        .await
        .expect("in time")
        .expect("an answer");
    let status = answer.status().as_u16();
    let reason = answer.headers().get("x-llm-d-request-dropped-reason");
    let reason = reason
        .map_or("", |value| value.to_str().expect("text"))
        .to_owned();
    let body = answer.into_body().collect().await.expect("whole").to_bytes();
    (status, reason, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn they_wait_and_are_answered_when_an_endpoint_comes() {
    let site = site("--no-endpoint-request-ttl=10m").await;
    let mut calls = [site.call().await, site.call().await];
    let through_the_proxy = site.chat();
    site.waiting(3).await;

    let engine = Engine::start(Script::Json).await;
    list(site.directory.path(), &[&engine]);
    for call in &mut calls {
        let forwarded = call.forwarded().await;
        assert_eq!(
            forwarded.set("x-gateway-destination-endpoint"),
            Some(engine.address.to_string())
        );
        assert_eq!(forwarded.body, CHAT);
    }
    let (status, _, body) = through_the_proxy.await.expect("joins");
    assert_eq!(status, 200, "{body}");
    site.waiting(0).await;
    site.ended("Dispatched", 3).await;
    // One is answered; the two of ext-proc have an endpoint and no answer yet.
    let labels = r#"fairness_id="default-flow",model_name="m",priority="0",target_model_name="m""#;
    site.metric(&format!("llm_d_epp_request_running{{{labels}}} 2"))
        .await;

    // Nobody waits any more where there is an endpoint.
    assert_eq!(site.chat().await.expect("joins").0, 200);
    site.ended("Dispatched", 3).await;
}

/// The other way round: a list that never changes.
#[tokio::test]
async fn endpoints_of_the_command_line_serve_without_a_file_and_a_cluster() {
    let engines = [
        Engine::start(Script::Json).await,
        Engine::start(Script::Json).await,
    ];
    let list = format!("{},{}", engines[0].address, engines[1].address);
    let port = proxy_port();
    let role = Role::start(format!(
        "{PORTS} --secure-serving=false --tracing=false --endpoints={list} --proxy-bind-address=127.0.0.1 \
         --proxy-port={port} --drain-timeout=0s"
    ))
    .await;
    let proxy = role.addresses.proxy.expect("a proxy");
    for _ in 0..20 {
        assert_eq!(send(proxy, "POST", Bytes::from_static(CHAT)).await.0, 200);
    }
    let page = role.get("/debug/endpoints").await;
    for (rank, engine) in engines.iter().enumerate() {
        let name = format!("endpoint-0-rank-{rank}");
        assert!(
            page.contains(&name) && page.contains(&engine.address.to_string()),
            "{page}"
        );
    }
}

#[tokio::test]
async fn a_body_that_ends_with_trailers_waits_too() {
    let site = site("--no-endpoint-request-ttl=10m").await;
    let mut call = Call::open(Role::channel(site.role.addresses.grpc.port()).await).await;
    let headers = [(":path", "/v1/chat/completions"), (":method", "POST")];
    call.send(head(&headers, false)).await;
    call.send(request_body(CHAT, false)).await;
    call.send(Event::RequestTrailers(trailers())).await;
    site.waiting(1).await;
    let engine = Engine::start(Script::Json).await;
    list(site.directory.path(), &[&engine]);
    assert!(matches!(
        call.answer().await.answer,
        Some(Answer::RequestHeaders(_))
    ));
    assert!(matches!(call.answer().await.answer, Some(Answer::RequestBody(_))));
    assert!(matches!(
        call.answer().await.answer,
        Some(Answer::RequestTrailers(_))
    ));
}

#[tokio::test]
async fn their_time_is_over_at_the_limit() {
    let site = site("--no-endpoint-request-ttl=20ms").await;
    let text = "request timed out in queue and no endpoints are available: ";
    let refusal = site.call().await.immediate().await;
    assert_eq!(refusal.status.map(|status| status.code), Some(503));
    let body = String::from_utf8_lossy(&refusal.body).into_owned();
    let expected = format!("inference error: ServiceUnavailable - {text}");
    assert!(body.starts_with(&expected), "{body}");
    let (status, reason, body) = site.chat().await.expect("joins");
    assert_eq!((status, reason.as_str()), (503, "rejected-no-endpoints"));
    assert!(body.contains(text), "{body}");
    site.ended("EvictedNoEndpoints", 2).await;
    site.waiting(0).await;
    let labels = r#"error_code="ServiceUnavailable",fairness_id="default-flow",model_name="m",priority="0",target_model_name="m""#;
    site.metric(&format!("llm_d_epp_request_error_total{{{labels}}} 2"))
        .await;
}

#[tokio::test]
async fn clients_that_leave_free_their_place() {
    let site = site("--no-endpoint-request-ttl=10m").await;
    let call = site.call().await;
    let chat = site.chat();
    site.waiting(2).await;
    drop(call);
    chat.abort();
    site.waiting(0).await;
    site.ended("EvictedContextCancelled", 2).await;
}

#[tokio::test]
async fn beyond_the_bounds_they_are_refused_at_once() {
    let site = site("--no-endpoint-request-ttl=10m --no-endpoint-max-requests=1").await;
    let _call = site.call().await;
    site.waiting(1).await;
    let (status, reason, body) = site.chat().await.expect("joins");
    assert_eq!((status, reason.as_str()), (503, "rejected-no-endpoints"));
    assert!(body.contains("queue at capacity"), "{body}");
    // Without a body nothing waits, as in upstream.
    assert_eq!(send(site.proxy, "GET", Bytes::new()).await.0, 503);
    site.waiting(1).await;
}

#[tokio::test]
async fn what_waits_at_the_end_is_told_so() {
    let site = site("--no-endpoint-request-ttl=10m --drain-timeout=0s").await;
    let mut call = site.call().await;
    let chat = site.chat();
    site.waiting(2).await;
    site.role.shutdown.cancel();
    let refusal = call.immediate().await;
    assert_eq!(refusal.status.map(|status| status.code), Some(503));
    let body = String::from_utf8_lossy(&refusal.body).into_owned();
    assert!(body.contains("flow controller shutting down: "), "{body}");
    let (status, reason, _) = chat.await.expect("joins");
    assert_eq!((status, reason.as_str()), (503, "rejected-shutting-down"));
}
