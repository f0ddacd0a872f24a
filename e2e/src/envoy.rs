//! A real Envoy in front of an ext-proc server, configured as the standalone router chart does
//! (llm-d-router, `config/charts/llm-d-router-standalone`).

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::http;
use crate::poll::{DEADLINE, free_port, poll_until_async};
use crate::process::Process;
use crate::tools;

/// How an Envoy under test differs from the chart's.
#[derive(Clone, Debug)]
pub struct Options {
    /// Let requests pass when the ext-proc server is away (`failure_mode_allow`).
    pub fail_open: bool,
    /// Speak TLS to the ext-proc server, without verifying (the chart's setting).
    pub tls: bool,
    /// Worker threads.
    pub concurrency: u32,
    /// Send request bodies to the ext-proc server.
    pub request_bodies: bool,
    /// Send response bodies to the ext-proc server.
    pub response_bodies: bool,
    /// Ask the ext-proc server at all; without, requests go to `fixed_upstreams`.
    pub ext_proc: bool,
    /// Further replicas of the ext-proc server. A dead one leaves the turn with its first failure.
    pub replicas: Vec<SocketAddr>,
    /// Tell this ext-proc server as well, after the first one, and wait for nothing of it.
    pub shadow: Option<SocketAddr>,
    /// Upstreams in turn, for measurements without routing by header; none routes by header.
    pub fixed_upstreams: Vec<SocketAddr>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            fail_open: false,
            tls: false,
            concurrency: 2,
            request_bodies: true,
            response_bodies: true,
            ext_proc: true,
            replicas: Vec::new(),
            shadow: None,
            fixed_upstreams: Vec::new(),
        }
    }
}

/// A running Envoy.
#[derive(Debug)]
pub struct Envoy {
    /// Where clients connect.
    pub address: SocketAddr,
    /// Admin interface.
    pub admin: SocketAddr,
    /// The process.
    pub process: Process,
    _config: tempfile::TempDir,
}

impl Envoy {
    /// Starts Envoy in front of the ext-proc server at `ext_proc` and waits until it serves.
    pub async fn start(ext_proc: SocketAddr, options: &Options) -> Self {
        let (listener, admin) = (loopback(free_port()), loopback(free_port()));
        Self::start_with(
            &bootstrap(listener, admin, ext_proc, options),
            listener,
            admin,
            options.concurrency,
        )
        .await
    }

    /// Starts Envoy with any bootstrap whose listener and admin address are known.
    ///
    /// # Panics
    /// When Envoy does not become live.
    pub async fn start_with(
        config: &Value,
        address: SocketAddr,
        admin: SocketAddr,
        concurrency: u32,
    ) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("envoy.json");
        std::fs::write(&path, config.to_string()).expect("a writable directory");
        let mut command = Command::new(tools::envoy());
        command
            .arg("-c")
            .arg(&path)
            .args(["--log-level", "warn", "--disable-hot-restart"]);
        command.args(["--concurrency", &concurrency.to_string()]);
        let process = Process::spawn("envoy", command);
        poll_until_async("a live Envoy", DEADLINE, || async {
            let ready = http::get(admin, "/ready").await.ok()?;
            (ready.status == 200).then_some(())
        })
        .await;
        Self {
            address,
            admin,
            process,
            _config: directory,
        }
    }

    /// One counter or gauge of Envoy's own statistics.
    ///
    /// # Panics
    /// When the admin interface does not answer.
    pub async fn stat(&self, name: &str) -> u64 {
        let answer = http::get(self.admin, &format!("/stats?filter=^{name}$"))
            .await
            .expect("Envoy's statistics");
        answer
            .text()
            .rsplit(": ")
            .next()
            .and_then(|value| value.trim().parse().ok())
            .unwrap_or(0)
    }
}

/// Checks a bootstrap with the real Envoy (`--mode validate`).
///
/// # Panics
/// When Envoy refuses it; the message holds Envoy's words.
pub fn validate(bootstrap: &str) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("envoy.yaml");
    std::fs::write(&path, bootstrap).expect("a writable directory");
    let output = Command::new(tools::envoy())
        .args(["--mode", "validate", "-c"])
        .arg(&path)
        .output()
        .expect("Envoy can be started");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn socket(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

fn bootstrap(listener: SocketAddr, admin: SocketAddr, ext_proc: SocketAddr, options: &Options) -> Value {
    let seconds = |duration: Duration| format!("{}s", duration.as_secs());
    let long = seconds(Duration::from_secs(86_400));
    let mut filters = Vec::new();
    if options.ext_proc {
        filters.push(json!({
            "name": "envoy.filters.http.ext_proc",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor",
                "grpc_service": {"envoy_grpc": {"cluster_name": "ext_proc", "authority": "localhost:9002"}, "timeout": "10s"},
                "message_timeout": "1000s",
                "failure_mode_allow": options.fail_open,
                "processing_mode": {
                    "request_header_mode": "SEND",
                    "request_body_mode": if options.request_bodies { "FULL_DUPLEX_STREAMED" } else { "NONE" },
                    "request_trailer_mode": if options.request_bodies { "SEND" } else { "SKIP" },
                    "response_header_mode": "SEND",
                    "response_body_mode": if options.response_bodies { "FULL_DUPLEX_STREAMED" } else { "NONE" },
                    "response_trailer_mode": "SEND"
                }
            }
        }));
    }
    if options.shadow.is_some() {
        filters.push(json!({
            "name": "shadow",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor",
                "grpc_service": {"envoy_grpc": {"cluster_name": "shadow"}},
                "observability_mode": true,
                "failure_mode_allow": true,
                "response_attributes": ["upstream.address"],
                "processing_mode": {
                    "request_header_mode": "SEND", "request_body_mode": "STREAMED", "request_trailer_mode": "SEND",
                    "response_header_mode": "SEND", "response_body_mode": "STREAMED", "response_trailer_mode": "SEND"
                }
            }
        }));
    }
    filters.push(json!({
        "name": "envoy.filters.http.router",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
            "suppress_envoy_headers": true
        }
    }));
    let breakers = json!({"thresholds": [{"max_connections": 40000, "max_requests": 40000, "max_pending_requests": 40000}]});
    let engines = if options.fixed_upstreams.is_empty() {
        json!({
            "name": "engines", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED", "connect_timeout": "10s",
            "circuit_breakers": breakers,
            "original_dst_lb_config": {"use_http_header": true, "http_header_name": "x-gateway-destination-endpoint"}
        })
    } else {
        let endpoint = |address: &SocketAddr| json!({"endpoint": {"address": socket(*address)}});
        let endpoints: Vec<_> = options.fixed_upstreams.iter().map(endpoint).collect();
        json!({
            "name": "engines", "type": "STATIC", "connect_timeout": "10s", "circuit_breakers": breakers,
            "load_assignment": {"cluster_name": "engines", "endpoints": [{"lb_endpoints": endpoints}]}
        })
    };
    let replicas: Vec<SocketAddr> = std::iter::once(ext_proc)
        .chain(options.replicas.clone())
        .collect();
    let mut ext_proc_cluster = grpc_cluster("ext_proc", &replicas, &breakers);
    if replicas.len() > 1 {
        ext_proc_cluster["outlier_detection"] = json!({
            "split_external_local_origin_errors": true,
            "consecutive_local_origin_failure": 1, "enforcing_consecutive_local_origin_failure": 100,
            "consecutive_gateway_failure": 1, "enforcing_consecutive_gateway_failure": 100,
            "interval": "1s", "base_ejection_time": "5s", "max_ejection_percent": 50
        });
    }
    if options.tls {
        ext_proc_cluster["transport_socket"] = json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "common_tls_context": {"alpn_protocols": ["h2"]}
            }
        });
    }
    let mut clusters = vec![engines, ext_proc_cluster];
    clusters.extend(
        options
            .shadow
            .map(|shadow| grpc_cluster("shadow", &[shadow], &breakers)),
    );
    json!({
        "admin": {"address": socket(admin)},
        "static_resources": {
            "listeners": [{
                "name": "llm",
                "address": socket(listener),
                "per_connection_buffer_limit_bytes": 32768,
                "filter_chains": [{"filters": [{
                    "name": "envoy.filters.network.http_connection_manager",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                        "stat_prefix": "http",
                        "common_http_protocol_options": {"headers_with_underscores_action": "REJECT_REQUEST"},
                        "http_protocol_options": {"enable_trailers": true},
                        "route_config": {"virtual_hosts": [{
                            "name": "all", "domains": ["*"],
                            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "engines", "timeout": long, "idle_timeout": long}}]
                        }]},
                        "http_filters": filters
                    }
                }]}]
            }],
            "clusters": clusters
        }
    })
}

fn grpc_cluster(name: &str, addresses: &[SocketAddr], breakers: &Value) -> Value {
    let endpoint = |address: &SocketAddr| json!({"endpoint": {"address": socket(*address)}});
    let endpoints: Vec<Value> = addresses.iter().map(endpoint).collect();
    json!({
        "name": name, "type": "STATIC", "connect_timeout": "10s", "circuit_breakers": breakers,
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}}
            }
        },
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]}
    })
}
