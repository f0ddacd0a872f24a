//! The whole role, started from a command line: upstream's flags and default configuration.

use std::ffi::OsString;
use std::path::Path;

use llmd_epp::flags::EppOptions;
use llmd_epp::run::{Addresses, RunError, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::health::check;
use crate::metrics_server::{Manner, MetricsServer, vllm_page};
use crate::picker::{CHAT, Call, PATIENCE, request_body, response_body, response_head};
use llmd_epp::health::ServingStatus;

/// Upstream's default plugins with weights, and file discovery.
const CONFIG: &str = "\
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: queue-scorer
- type: kv-cache-utilization-scorer
- type: prefix-cache-scorer
- type: metrics-data-source
- type: core-metrics-extractor
- type: file-discovery
  parameters: {path: ENDPOINTS, watchFile: true}
schedulingProfiles:
- name: default
  plugins:
  - {pluginRef: queue-scorer, weight: 2}
  - {pluginRef: kv-cache-utilization-scorer, weight: 2}
  - {pluginRef: prefix-cache-scorer, weight: 3}
dataLayer:
  discovery: {pluginRef: file-discovery}
";

pub(crate) struct Role {
    pub(crate) addresses: Addresses,
    pub(crate) shutdown: CancellationToken,
    pub(crate) running: tokio::task::JoinHandle<Result<(), RunError>>,
}

fn parse(line: &str) -> EppOptions {
    EppOptions::parse(line.split_whitespace().map(OsString::from)).expect("valid flags")
}

/// Ports that the system chooses.
pub(crate) const PORTS: &str = "--grpc-port=0 --grpc-health-port=0 --metrics-port=0";

pub(crate) fn write_config(directory: &Path, endpoints: &[&MetricsServer]) -> String {
    let list = directory.join("endpoints.yaml");
    let entries = endpoints.iter().enumerate().map(|(index, engine)| {
        let (address, port) = (engine.address.ip(), engine.address.port());
        format!("- {{name: engine-{index}, address: {address}, port: '{port}'}}\n")
    });
    let entries: String = entries.collect();
    std::fs::write(&list, format!("endpoints:\n{entries}")).expect("written");
    let config = directory.join("config.yaml");
    std::fs::write(&config, CONFIG.replace("ENDPOINTS", &list.display().to_string())).expect("written");
    config.display().to_string()
}

impl Role {
    pub(crate) async fn start(flags: String) -> Self {
        let shutdown = CancellationToken::new();
        let (sender, ready) = oneshot::channel();
        let token = shutdown.clone();
        let running = tokio::spawn(async move {
            let options = parse(&flags);
            serve(&options, None, token, |addresses| {
                sender.send(addresses).expect("awaited");
            })
            .await
        });
        let addresses = tokio::time::timeout(PATIENCE, ready)
            .await
            .expect("ready in time")
            .expect("serves");
        Self {
            addresses,
            shutdown,
            running,
        }
    }

    pub(crate) async fn channel(port: u16) -> Channel {
        let channel = Channel::from_shared(format!("http://127.0.0.1:{port}")).expect("valid");
        channel.connect().await.expect("connects")
    }

    pub(crate) async fn get(&self, path: &str) -> String {
        self.get_as(path, "").await
    }

    /// With a further header line, which ends with CR LF.
    pub(crate) async fn get_as(&self, path: &str, header: &str) -> String {
        let address = ("127.0.0.1", self.addresses.metrics.port());
        let mut stream = tokio::net::TcpStream::connect(address).await.expect("connects");
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n{header}connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answered");
        answer
    }
}

#[tokio::test]
async fn upstreams_flags_and_default_configuration_start_unchanged() {
    let busy = MetricsServer::start(Manner::Proper, vllm_page(10, 5, 0.9)).await;
    let idle = MetricsServer::start(Manner::Proper, vllm_page(0, 0, 0.1)).await;
    let directory = tempfile::tempdir().expect("a directory");
    let config = write_config(directory.path(), &[&busy, &idle]);
    let role = Role::start(format!(
        "{PORTS} -v=2 --secure-serving=false --pool-name=pool --pool-namespace default \
         --zap-encoder=json --config-file {config} --drain-timeout=0s --enable-grpc-stream-metrics \
         --refresh-prometheus-metrics-interval=50ms"
    ))
    .await;
    let health = Role::channel(role.addresses.health.port()).await;
    assert_eq!(check(&health, "readiness").await, ServingStatus::Serving);

    // The metrics of both engines are in when the idle one is preferred for every prompt.
    let channel = Role::channel(role.addresses.grpc.port()).await;
    let scraped = until_async(async || {
        let page = role.get("/metrics").await;
        page.contains("llm_d_epp_average_queue_size{name=\"pool\"} 5")
            .then_some(page)
    });
    scraped.await;
    let mut call = Call::open(channel).await;
    call.request(&[("x-request-id", "r")], &[CHAT]).await;
    let destination = call.forwarded().await.set("x-gateway-destination-endpoint");
    assert_eq!(destination, Some(idle.address.to_string()));
    let debug = role.get("/debug/endpoints").await;
    assert!(debug.contains("\"inFlightRequests\":1"), "{debug}");
    let held = role.get("/debug/plugins/state").await;
    for part in [
        "\"timestamp\":\"20",
        "\"inflight-load-producer\":{\"name\":\"inflight-load-producer\",\"type\":\"inflight-load-producer\",\"state\":{",
        "\"requests\":1",
        "\"message\":\"plugin does not support state collection\"",
    ] {
        assert!(held.contains(part), "{part} is not in\n{held}");
    }

    call.send(response_head(&[
        (":status", "200"),
        ("content-type", "application/json"),
    ]))
    .await;
    call.answer().await;
    call.send(response_body(
        br#"{"usage":{"prompt_tokens":3,"completion_tokens":4}}"#,
        true,
    ))
    .await;
    assert!(call.response_chunk().await.end_of_stream);
    drop(call);
    let page = until_async(async || {
        let page = role.get("/metrics").await;
        page.contains("llm_d_epp_extproc_streams_inflight 0")
            .then_some(page)
    })
    .await;
    for line in [
        "llm_d_epp_request_total{fairness_id=\"default-flow\",model_name=\"m\",priority=\"0\",target_model_name=\"m\"} 1",
        "inference_objective_request_total{model_name=\"m\",priority=\"0\",target_model_name=\"m\"} 1",
        "llm_d_epp_request_running{fairness_id=\"default-flow\",model_name=\"m\",priority=\"0\",target_model_name=\"m\"} 0",
        "inference_pool_ready_pods{name=\"pool\"} 2",
        "llm_d_epp_ready_endpoints{name=\"pool\"} 2",
        "llm_d_epp_scheduler_e2e_duration_seconds_count 1",
        "llm_d_epp_request_input_tokens_sum{fairness_id=\"default-flow\",model_name=\"m\",priority=\"0\",target_model_name=\"m\"} 3",
    ] {
        assert!(
            page.lines().any(|found| found == line),
            "{line} is not in\n{page}"
        );
    }
    let debug = role.get("/debug/endpoints").await;
    assert!(!debug.contains("\"inFlightRequests\":1"), "{debug}");

    role.shutdown.cancel();
    tokio::time::timeout(PATIENCE, role.running)
        .await
        .expect("ends in time")
        .expect("joins")
        .expect("in order");
}

#[tokio::test]
async fn while_it_drains_it_serves_and_is_not_ready() {
    let engine = MetricsServer::start(Manner::Proper, vllm_page(0, 0, 0.0)).await;
    let directory = tempfile::tempdir().expect("a directory");
    let config = write_config(directory.path(), &[&engine]);
    let role = Role::start(format!(
        "{PORTS} --secure-serving=false --health-checking --config-file={config} --drain-timeout=10m"
    ))
    .await;
    let channel = Role::channel(role.addresses.grpc.port()).await;
    assert_eq!(check(&channel, "").await, ServingStatus::Serving);
    role.shutdown.cancel();
    until_async(async || (check(&channel, "").await == ServingStatus::NotServing).then_some(())).await;
    assert_eq!(check(&channel, "serving").await, ServingStatus::Serving);
    let mut call = Call::open(channel).await;
    call.request(&[], &[CHAT]).await;
    call.forwarded().await;
    call.send(request_body(b"", true)).await;
    role.running.abort();
}

#[tokio::test]
async fn the_built_in_proxy_is_served_beside_ext_proc() {
    let engine = MetricsServer::start(Manner::Proper, vllm_page(0, 0, 0.0)).await;
    let directory = tempfile::tempdir().expect("a directory");
    let config = write_config(directory.path(), &[&engine]);
    let port = proxy_port();
    let role = Role::start(format!(
        "{PORTS} --bind-address=127.0.0.1 --config-file={config} --proxy-port={port} --proxy-bind-address=127.0.0.1 --drain-timeout=0s"
    ))
    .await;
    assert!(role.addresses.grpc.ip().is_loopback() && role.addresses.metrics.ip().is_loopback());
    let address = role.addresses.proxy.expect("a proxy");
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("connects");
    stream
        .write_all(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    role.shutdown.cancel();
    tokio::time::timeout(PATIENCE, role.running)
        .await
        .expect("ends in time")
        .expect("joins")
        .expect("in order");
}

/// A port for `--proxy-port`, whose 0 means "no proxy"; nothing else in this process asks for it again.
pub(crate) fn proxy_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("binds");
    listener.local_addr().expect("bound").port()
}

pub(crate) async fn refused(flags: &str) -> String {
    let options = parse(flags);
    let outcome = tokio::time::timeout(PATIENCE, serve(&options, None, CancellationToken::new(), |_| ()));
    outcome.await.expect("ends in time").expect_err(flags).to_string()
}

#[tokio::test]
async fn what_stops_a_start_is_named_with_its_fix() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = write_config(directory.path(), &[]);
    assert!(refused(PORTS).await.contains("'file-discovery'"));
    let missing = refused(&format!("{PORTS} --config-file=/does/not/exist")).await;
    assert!(missing.contains("--config-file '/does/not/exist'"), "{missing}");
    let unknown = refused(&format!("{PORTS} --config-text=plugins:[{{type:nonsense}}]")).await;
    assert!(unknown.starts_with("configuration: "), "{unknown}");
    let certificates = refused(&format!(
        "{PORTS} --config-file={config} --cert-path=/does/not/exist"
    ))
    .await;
    assert!(certificates.contains("tls.crt"), "{certificates}");

    let holder = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("binds");
    let port = holder.local_addr().expect("bound").port();
    let taken = refused(&format!(
        "--grpc-port=0 --grpc-health-port=0 --metrics-port={port} --bind-address=127.0.0.1 --config-file={config}"
    ))
    .await;
    assert!(taken.contains(&format!("--metrics-port={port}")), "{taken}");

    std::fs::remove_file(directory.path().join("endpoints.yaml")).expect("removed");
    let endpoints = refused(&format!("{PORTS} --config-file={config}")).await;
    assert!(endpoints.contains("endpoints.yaml"), "{endpoints}");
}

/// Polls an asynchronous question until it has an answer.
pub(crate) async fn until_async<T>(mut question: impl AsyncFnMut() -> Option<T>) -> T {
    let ask = async {
        loop {
            if let Some(answer) = question().await {
                return answer;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ask)
        .await
        .expect("an answer in time")
}

/// An API server that takes connections and says nothing.
#[tokio::test]
async fn the_ports_for_requests_open_when_the_pool_is_known() {
    let silent = tokio::net::TcpListener::bind(("127.0.0.1", 0))
        .await
        .expect("binds");
    let server = format!("http://{}", silent.local_addr().expect("bound"));
    let directory = tempfile::tempdir().expect("a directory");
    let kubeconfig = directory.path().join("kubeconfig");
    let content = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
         clusters: [{{name: c, cluster: {{server: '{server}'}}}}]\nusers: [{{name: u, user: {{}}}}]\n"
    );
    std::fs::write(&kubeconfig, content).expect("written");
    let role = Role::start(format!(
        "{PORTS} --secure-serving=false --pool-name=pool --pool-namespace=default --kubeconfig={} \
         --drain-timeout=0s --metrics-endpoint-auth=false --bind-address=127.0.0.1",
        kubeconfig.display()
    ))
    .await;
    let asked = tokio::time::timeout(PATIENCE, silent.accept()).await;
    let _held = asked.expect("asked in time").expect("accepted");

    let refused = tokio::net::TcpStream::connect(role.addresses.grpc).await;
    assert_eq!(
        refused.expect_err("closed").kind(),
        std::io::ErrorKind::ConnectionRefused
    );
    let health = Role::channel(role.addresses.health.port()).await;
    assert_eq!(check(&health, "readiness").await, ServingStatus::NotServing);
    role.shutdown.cancel();
    let ended = tokio::time::timeout(PATIENCE, role.running).await;
    ended.expect("ends in time").expect("joins").expect("in order");
}
