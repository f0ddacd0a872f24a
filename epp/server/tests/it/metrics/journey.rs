//! Pickers that see everything once: streams and answers, errors, engines that are away, two stages.

use std::path::Path;

use llmd_epp_core::request_metrics::RequestMetrics;
use prometheus::{Registry, TextEncoder};

use super::exposition::Page;
use super::merged;
use crate::engine::{Engine, Script};
use crate::metrics_server::{Manner, MetricsServer, vllm_page};
use crate::picker::{CHAT, Call, response_body, response_head};
use crate::proxy::rig::{post, send_to, text};
use crate::role::{PORTS, Role, proxy_port, until_async};

const HEAD: &str = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n";
const AGGREGATED: &str = "\
plugins:
- type: queue-scorer
- type: kv-cache-utilization-scorer
- type: prefix-cache-scorer
- type: file-discovery
  parameters: {path: ENDPOINTS}
dataLayer: {discovery: {pluginRef: file-discovery}}
schedulingProfiles:
- name: default
  plugins:
  - {pluginRef: queue-scorer, weight: 2}
  - {pluginRef: kv-cache-utilization-scorer, weight: 2}
  - {pluginRef: prefix-cache-scorer, weight: 3}
";
const DISAGGREGATED: &str = "\
plugins:
- type: always-disagg-pd-decider
- type: disagg-profile-handler
  parameters: {deciders: {prefill: always-disagg-pd-decider}}
- type: prefill-filter
- type: decode-filter
- type: file-discovery
  parameters: {path: ENDPOINTS}
dataLayer: {discovery: {pluginRef: file-discovery}}
schedulingProfiles:
- {name: prefill, plugins: [{pluginRef: prefill-filter}]}
- {name: decode, plugins: [{pluginRef: decode-filter}]}
";

/// Name, address, port and role of an endpoint.
type Member<'a> = (&'a str, std::net::SocketAddr, &'a str);

fn write(directory: &Path, config: &str, members: &[Member<'_>]) -> String {
    let list = directory.join("endpoints.yaml");
    let entries = members.iter().map(|(name, address, role)| {
        let (address, port) = (address.ip(), address.port());
        format!("- {{name: {name}, address: {address}, port: '{port}', labels: {{llm-d.ai/role: {role}}}}}\n")
    });
    std::fs::write(&list, format!("endpoints:\n{}", entries.collect::<String>())).expect("written");
    let file = directory.join("config.yaml");
    let config = config.replace("ENDPOINTS", &list.display().to_string());
    std::fs::write(&file, format!("{HEAD}{config}")).expect("written");
    file.display().to_string()
}

async fn scrape(role: &Role, wanted: &[&str]) -> Page {
    until_async(async || {
        let page = role.get("/metrics").await;
        let (_, body) = page.split_once("\r\n\r\n").expect("a body");
        wanted
            .iter()
            .all(|word| body.contains(word))
            .then(|| Page::parse(body))
    })
    .await
}

/// All pages as one.
pub(super) async fn everything() -> Page {
    merged([
        empty().await,
        aggregated("").await,
        disaggregated().await,
        rewritten(),
    ])
}

/// A request that waits in vain for an endpoint.
async fn empty() -> Page {
    let directory = tempfile::tempdir().expect("a directory");
    let config = write(directory.path(), AGGREGATED, &[]);
    std::fs::write(directory.path().join("endpoints.yaml"), "endpoints: []").expect("written");
    let role = Role::start(format!(
        "{PORTS} --secure-serving=false --config-file={config} --drain-timeout=0s --no-endpoint-request-ttl=10ms"
    ))
    .await;
    let mut call = Call::open(Role::channel(role.addresses.grpc.port()).await).await;
    call.request(&[], &[CHAT]).await;
    call.immediate().await;
    scrape(&role, &["llm_d_epp_flow_control_requests_total{"]).await
}

/// Requests of every kind over one pool.
pub(super) async fn aggregated(flags: &str) -> Page {
    let mut engine = Engine::start(Script::AsAsked(3)).await;
    (0..3).for_each(|_| engine.release());
    let partial = "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running 1\n";
    let half = MetricsServer::start(Manner::Proper, partial.to_owned()).await;
    let directory = tempfile::tempdir().expect("a directory");
    let nobody = {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("binds");
        listener.local_addr().expect("bound")
    };
    let members = [
        ("engine", engine.address, "both"),
        ("half", half.address, "both"),
        ("nobody", nobody, "both"),
    ];
    let config = write(directory.path(), AGGREGATED, &members);
    let port = proxy_port();
    let role = Role::start(format!(
        "{PORTS} --secure-serving=false --config-file={config} --drain-timeout=0s --enable-grpc-stream-metrics \
         --refresh-prometheus-metrics-interval=20ms --proxy-port={port} {flags}"
    ))
    .await;
    let channel = Role::channel(role.addresses.grpc.port()).await;
    let subset = crate::picker::subset(&[&engine.address.to_string()]);
    // A stream with usage, an answer with usage, an answer of an engine that fails, a request that is refused.
    for (content_type, status, chunks) in [
        (
            "text/event-stream",
            "200",
            &[
                "data: {\"choices\":[]}\n\n",
                "data: {\"choices\":[]}\n\n",
                "data: {\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":9,\"prompt_tokens_details\":{\"cached_tokens\":4}}}\n\n",
            ][..],
        ),
        (
            "application/json",
            "200",
            &["{\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":9}}"],
        ),
        ("application/json", "500", &["{}"]),
    ] {
        let mut call = Call::open(channel.clone()).await;
        let head = crate::picker::head(&[(":path", "/v1/chat/completions"), (":method", "POST")], false);
        call.send_with(head, Some(subset.clone())).await;
        call.send(crate::picker::request_body(CHAT, true)).await;
        call.forwarded().await;
        call.send(response_head(&[
            (":status", status),
            ("content-type", content_type),
        ]))
        .await;
        call.answer().await;
        for (index, chunk) in chunks.iter().enumerate() {
            let end = index + 1 == chunks.len();
            call.send(response_body(chunk.as_bytes(), end)).await;
            call.response_chunk().await;
        }
    }
    let mut refused = Call::open(channel).await;
    refused.request(&[], &[b"{}"]).await;
    refused.immediate().await;
    drop(refused);
    let proxy = role.addresses.proxy.expect("a proxy");
    let body = String::from_utf8(CHAT.to_vec()).expect("text");
    drop(text(send_to(proxy, post("/v1/chat/completions", &[], &body)).await).await);
    let page = scrape(
        &role,
        &[
            "llm_d_epp_extproc_streams_inflight 0",
            "llm_d_epp_datalayer_poll_errors_total",
            "llm_d_epp_datalayer_extract_errors_total",
            "llm_d_epp_average_queue_size",
        ],
    )
    .await;
    engine.kill().await;
    role.running.abort();
    page
}

async fn disaggregated() -> Page {
    let prefill = MetricsServer::start(Manner::Proper, vllm_page(0, 0, 0.0)).await;
    let decode = MetricsServer::start(Manner::Proper, vllm_page(0, 0, 0.0)).await;
    let directory = tempfile::tempdir().expect("a directory");
    let members = [("p", prefill.address, "prefill"), ("d", decode.address, "decode")];
    let config = write(directory.path(), DISAGGREGATED, &members);
    let role = Role::start(format!(
        "{PORTS} --secure-serving=false --config-file={config} --drain-timeout=0s"
    ))
    .await;
    let mut call = Call::open(Role::channel(role.addresses.grpc.port()).await).await;
    call.request(&[], &[CHAT]).await;
    call.forwarded().await;
    let page = scrape(&role, &["disagg_decision_total"]).await;
    role.running.abort();
    page
}

/// What only objects of a cluster cause.
fn rewritten() -> Page {
    let registry = Registry::new();
    let metrics = RequestMetrics::register(&registry, true, "", "").expect("registers");
    metrics.rewritten("rewrite", "m", "target");
    let page = TextEncoder::new().encode_to_string(&registry.gather());
    Page::parse(&page.expect("encodes"))
}
