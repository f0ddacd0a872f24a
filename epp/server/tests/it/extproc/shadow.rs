//! A picker that answers nothing and compares its picks with what served.

use llmd_epp::extproc::proto::{Metadata, ProcessingRequest};
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use tonic::Code;

use crate::metrics_server::{Manner, MetricsServer, vllm_page};
use crate::picker::{CHAT, Call, head, request_body, response_body, response_head};
use crate::role::{PORTS, Role, until_async, write_config};

async fn shadow() -> (Role, String, String, tempfile::TempDir, [MetricsServer; 2]) {
    let busy = MetricsServer::start(Manner::Proper, vllm_page(10, 5, 0.9)).await;
    let idle = MetricsServer::start(Manner::Proper, vllm_page(0, 0, 0.1)).await;
    let directory = tempfile::tempdir().expect("a directory");
    let config = write_config(directory.path(), &[&busy, &idle]);
    let role = Role::start(format!(
        "{PORTS} --secure-serving=false --config-file={config} --drain-timeout=0s --shadow \
         --refresh-prometheus-metrics-interval=20ms"
    ))
    .await;
    shows(&role, "llm_d_epp_ready_endpoints{name=\"epp\"} 2").await;
    let (one, other) = (busy.address.to_string(), idle.address.to_string());
    (role, one, other, directory, [busy, idle])
}

async fn shows(role: &Role, line: &str) {
    until_async(async || {
        let page = role.get("/metrics").await;
        page.lines().any(|found| found == line).then_some(())
    })
    .await;
}

async fn counted(role: &Role, result: &str, count: u32) {
    let line = format!("llm_d_epp_shadow_decisions_total{{result=\"{result}\"}} {count}");
    shows(role, &line).await;
}

fn told(namespace: &str, key: &str, value: &str) -> (String, Struct) {
    let value = Value {
        kind: Some(Kind::StringValue(value.to_owned())),
    };
    let fields = [(key.to_owned(), value)].into();
    (namespace.to_owned(), Struct { fields })
}

/// A request of which Envoy says who serves it, and how.
struct Observed<'a> {
    header: Option<&'a str>,
    attribute: Option<&'a str>,
    metadata: Option<&'a str>,
}

const NOBODY: Observed<'_> = Observed {
    header: None,
    attribute: None,
    metadata: None,
};

async fn observe(role: &Role, body: &[u8], observed: Observed<'_>) -> Call {
    let mut call = Call::open(Role::channel(role.addresses.grpc.port()).await).await;
    let mut headers = vec![(":path", "/v1/chat/completions"), (":method", "POST")];
    headers.extend(observed.header.map(|by| ("x-gateway-destination-endpoint", by)));
    call.message(ProcessingRequest {
        event: Some(head(&headers, false)),
        observability_mode: true,
        ..ProcessingRequest::default()
    })
    .await;
    call.send(request_body(body, true)).await;
    let answer = response_head(&[(":status", "200"), ("content-type", "application/json")]);
    let attributes = observed
        .attribute
        .map(|by| told("envoy.filters.http.ext_proc", "upstream.address", by));
    let metadata = observed.metadata.map(|by| Metadata {
        filter_metadata: [told("envoy.lb", "x-gateway-destination-endpoint-served", by)].into(),
    });
    call.message(ProcessingRequest {
        event: Some(answer),
        metadata_context: metadata,
        attributes: attributes.into_iter().collect(),
        ..ProcessingRequest::default()
    })
    .await;
    call
}

#[tokio::test]
async fn picks_are_compared_with_whoever_served_and_nothing_is_answered() {
    let (role, busy, idle, _directory, _engines) = shadow().await;
    let mut calls = Vec::new();
    for observed in [
        Observed {
            header: Some(&idle),
            ..NOBODY
        },
        Observed {
            attribute: Some(&idle),
            ..NOBODY
        },
        // What the answer says comes before what the request said.
        Observed {
            header: Some(&busy),
            metadata: Some(&idle),
            ..NOBODY
        },
    ] {
        calls.push(observe(&role, CHAT, observed).await);
        counted(&role, "agreed", u32::try_from(calls.len()).expect("few")).await;
    }
    let ordered = format!("{busy},{idle}");
    let differs = Observed {
        header: Some(&ordered),
        ..NOBODY
    };
    calls.push(observe(&role, CHAT, differs).await);
    counted(&role, "differed", 1).await;
    let elsewhere = Observed {
        header: Some("192.0.2.1:8000"),
        ..NOBODY
    };
    calls.push(observe(&role, CHAT, elsewhere).await);
    counted(&role, "unknown_endpoint", 1).await;
    calls.push(observe(&role, b"{}", NOBODY).await);
    counted(&role, "rejected", 1).await;
    calls.push(observe(&role, CHAT, NOBODY).await);
    counted(&role, "unserved", 1).await;

    for mut call in calls {
        call.send(response_body(
            b"{\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4}}",
            true,
        ))
        .await;
        call.half_close();
        assert!(call.next().await.is_none(), "no answer, and no error");
    }
    role.running.abort();
}

#[tokio::test]
async fn load_and_prefix_are_booked_where_the_request_went() {
    let (role, busy, idle, _directory, _engines) = shadow().await;
    let prompt = "a prompt of several blocks that stays the same ".repeat(40);
    let body =
        serde_json::json!({"model": "m", "messages": [{"role": "user", "content": prompt}]}).to_string();
    let served_by_busy = || Observed {
        attribute: Some(&busy),
        ..NOBODY
    };
    let in_flight = async |count: u32, target: &str| {
        until_async(async || {
            let page = role.get("/debug/endpoints").await;
            let (_, body) = page.split_once("\r\n\r\n")?;
            let page: serde_json::Value = serde_json::from_str(body).ok()?;
            let mut endpoints = page["endpoints"].as_array()?.iter();
            let found = endpoints.find(|endpoint| endpoint["target"] == target)?;
            (found["inFlightRequests"] == count).then_some(())
        })
        .await;
    };
    let mut call = observe(&role, body.as_bytes(), served_by_busy()).await;
    counted(&role, "differed", 1).await;
    in_flight(1, &busy).await;
    in_flight(0, &idle).await;
    call.send(response_body(b"{}", true)).await;
    in_flight(0, &busy).await;
    drop(call);
    // The other picker goes on with what its endpoint has cached, and so would we: 3 of 7 against 2 + 0.8 · 2.
    let page = role.get("/metrics").await;
    assert!(
        page.contains("llm_d_epp_prefix_indexer_size{plugin_name=\"approx-prefix-cache-producer\""),
        "{page}"
    );
    let sum = |name: &str| {
        let line = page.lines().find(|line| line.starts_with(name)).expect(name);
        line.rsplit(' ')
            .next()
            .and_then(|value| value.parse::<f64>().ok())
            .expect("a number")
    };
    assert!(sum("llm_d_epp_prefix_indexer_size{") > 0.0);
    role.running.abort();
}

#[tokio::test]
async fn a_filter_that_waits_for_answers_is_refused() {
    let (role, ..) = shadow().await;
    let mut call = Call::open(Role::channel(role.addresses.grpc.port()).await).await;
    call.request(&[], &[CHAT]).await;
    let status = call.next().await.expect("an end").expect_err("refused");
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("observability_mode"), "{status}");
    role.running.abort();
}
