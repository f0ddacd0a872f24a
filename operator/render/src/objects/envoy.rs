//! Envoy beside the Endpoint Picker, configured as the standalone chart does, but for the way to the engines.
//! Source: llm-d-router `config/charts/llm-d-router-standalone`, bootstrap of the Envoy preset.

use std::sync::OnceLock;

use k8s_openapi::api::core::v1::{ConfigMap, Container};
use serde_json::{Value, json};

use super::images;
use super::meta::{map, metadata};
use super::pod::{LAST_WORDS, Timing, container_security, http_probe, mount, port, resources};
use crate::names;
use crate::options::RenderOptions;
use crate::validated::{ValidatedDeployment, ValidatedProxy};

/// Headers that only the Endpoint Picker may set. They are removed before it sees the request, so
/// that a client cannot choose a target, nor make a sidecar connect somewhere.
const ROUTING_OUTPUTS: [&str; 7] = [
    "x-gateway-destination-endpoint",
    "x-gateway-destination-endpoint-served",
    "x-gateway-destination-endpoint-subset",
    "x-prefiller-host-port",
    "x-encoder-hosts-ports",
    "x-data-parallel-host-port",
    "x-kv-cache-source-host-port",
];

const LONG: &str = "86400s";
/// The cluster of the model servers.
const ENGINES: &str = "engines";

pub(super) fn config_map_name(deployment: &ValidatedDeployment) -> String {
    format!("{}-proxy", deployment.name)
}

/// The bootstrap; `None` when Envoy is not asked for.
pub(super) fn config_map(deployment: &ValidatedDeployment) -> Option<ConfigMap> {
    let text = bootstrap_text(deployment)?;
    Some(ConfigMap {
        metadata: metadata(deployment, config_map_name(deployment), "proxy"),
        data: Some(map([("envoy.yaml", text)])),
        ..ConfigMap::default()
    })
}

/// The bootstrap as YAML. It has four forms, each written once: writing one costs more than all other objects.
pub(super) fn bootstrap_text(deployment: &ValidatedDeployment) -> Option<&'static str> {
    static FORMS: [OnceLock<String>; 4] = [const { OnceLock::new() }; 4];
    let ValidatedProxy::Envoy { fail_open, .. } = deployment.router.proxy else {
        return None;
    };
    let flags = &deployment.router.flags;
    let secure = flags.get("secure-serving").is_none_or(|value| value != "false");
    let form = &FORMS[usize::from(fail_open) * 2 + usize::from(secure)];
    Some(form.get_or_init(|| serde_yaml::to_string(&bootstrap(fail_open, secure)).unwrap_or_default()))
}

/// Starts before the Endpoint Picker and ends after it (Kubernetes 1.29+).
pub(super) fn sidecar(image: Option<&str>, options: &RenderOptions) -> Container {
    let text = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    Container {
        name: "proxy".to_owned(),
        restart_policy: Some("Always".to_owned()),
        termination_message_policy: Some(LAST_WORDS.to_owned()),
        image: Some(image.map_or_else(|| options.mirrored(images::ENVOY), str::to_owned)),
        command: Some(text(&["envoy"])),
        args: Some(text(&[
            "--log-level",
            "warn",
            "--concurrency",
            "4",
            "--drain-strategy",
            "immediate",
            "--drain-time-s",
            "60",
            "-c",
            "/etc/envoy/envoy.yaml",
        ])),
        ports: Some(vec![
            port("http-8081", names::PROXY_PORT),
            port("metrics-19001", names::PROXY_METRICS_PORT),
        ]),
        readiness_probe: Some(http_probe(
            "/ready",
            "metrics-19001",
            &Timing {
                initial: 0,
                period: 5,
                timeout: 1,
                failures: 1,
            },
        )),
        resources: resources(
            &map([("cpu", "1"), ("memory", "512Mi")]),
            &map([("memory", "2Gi")]),
        ),
        security_context: Some(container_security()),
        volume_mounts: Some(vec![mount("proxy-config", "/etc/envoy", true)]),
        ..Container::default()
    }
}

fn bootstrap(fail_open: bool, secure: bool) -> Value {
    json!({
        // Who asks for endpoints; the picker answers everybody alike.
        "node": {"id": "router", "cluster": "llmd"},
        "admin": {"address": socket("127.0.0.1", names::PROXY_ADMIN_PORT)},
        "static_resources": {
            "listeners": [listener(fail_open), stats_listener()],
            "clusters": [engines(), ext_proc(fail_open, secure), admin_cluster()]
        }
    })
}

fn socket(address: &str, port: i32) -> Value {
    json!({"socket_address": {"address": address, "port_value": port}})
}

fn typed(kind: &str, mut config: Value) -> Value {
    config["@type"] = format!("type.googleapis.com/envoy.extensions.{kind}").into();
    config
}

fn router_filter() -> Value {
    json!({
        "name": "envoy.filters.http.router",
        "typed_config": typed("filters.http.router.v3.Router", json!({"suppress_envoy_headers": true}))
    })
}

fn manager(config: Value) -> Value {
    json!([{"filters": [{
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": typed("filters.network.http_connection_manager.v3.HttpConnectionManager", config)
    }]}])
}

fn listener(fail_open: bool) -> Value {
    let removals: Vec<Value> = ROUTING_OUTPUTS
        .iter()
        .map(|name| json!({"remove": name}))
        .collect();
    json!({
        "name": "llm",
        "address": socket("0.0.0.0", names::PROXY_PORT),
        "per_connection_buffer_limit_bytes": 32768,
        "filter_chains": manager(json!({
            "stat_prefix": "llm",
            "codec_type": "AUTO",
            "use_remote_address": true,
            "normalize_path": true,
            "merge_slashes": true,
            "path_with_escaped_slashes_action": "UNESCAPE_AND_REDIRECT",
            "common_http_protocol_options": {"headers_with_underscores_action": "REJECT_REQUEST", "idle_timeout": "3600s"},
            "http_protocol_options": {"enable_trailers": true},
            "http2_protocol_options": {
                "max_concurrent_streams": 100,
                "initial_stream_window_size": 65536,
                "initial_connection_window_size": 1_048_576
            },
            "upgrade_configs": [{"upgrade_type": "websocket"}],
            "early_header_mutation_extensions": [{
                "name": "envoy.http.early_header_mutation.header_mutation",
                "typed_config": typed("http.early_header_mutation.header_mutation.v3.HeaderMutation", json!({"mutations": removals}))
            }],
            "route_config": {
                "name": "engines",
                "virtual_hosts": [{
                    "name": "engines",
                    "domains": ["*"],
                    // A longer body is on its way to one engine only.
                    "request_body_buffer_limit": 1_048_576,
                    "routes": [{
                        "match": {"prefix": "/"},
                        "route": {"cluster": ENGINES, "timeout": LONG, "idle_timeout": LONG, "retry_policy": retries()}
                    }]
                }]
            },
            "http_filters": [
                {
                    "name": "envoy.filters.http.ext_proc",
                    "typed_config": typed("filters.http.ext_proc.v3.ExternalProcessor", json!({
                        "grpc_service": {
                            "envoy_grpc": {"cluster_name": "ext_proc", "authority": "localhost:9002"},
                            "timeout": "10s"
                        },
                        "message_timeout": "1000s",
                        "failure_mode_allow": fail_open,
                        // Who was asked in the end: the picker judges engines by their answers.
                        "response_attributes": ["upstream.address"],
                        "processing_mode": {
                            "request_header_mode": "SEND",
                            "request_body_mode": "FULL_DUPLEX_STREAMED",
                            "request_trailer_mode": "SEND",
                            "response_header_mode": "SEND",
                            "response_body_mode": "FULL_DUPLEX_STREAMED",
                            "response_trailer_mode": "SEND"
                        }
                    }))
                },
                router_filter()
            ]
        }))
    })
}

/// Readiness and statistics for the kubelet and Prometheus; the admin interface itself stays on loopback.
fn stats_listener() -> Value {
    let route = |path: &str| json!({"match": {"path": path}, "route": {"cluster": "admin"}});
    json!({
        "name": "stats",
        "address": socket("0.0.0.0", names::PROXY_METRICS_PORT),
        "filter_chains": manager(json!({
            "stat_prefix": "stats",
            "route_config": {
                "name": "stats",
                "virtual_hosts": [{
                    "name": "stats",
                    "domains": ["*"],
                    "routes": [route("/ready"), route("/stats/prometheus")]
                }]
            },
            "http_filters": [router_filter()]
        }))
    })
}

fn breakers() -> Value {
    json!({"thresholds": [{"max_connections": 40000, "max_pending_requests": 40000, "max_requests": 40000, "max_retries": 1024}]})
}

/// What an engine has not begun to answer goes to the next one of the picker's list, or to any: an answer that was never
/// seen may be generated again.
fn retries() -> Value {
    json!({
        "retry_on": "connect-failure,refused-stream,reset",
        "num_retries": 5,
        "retry_host_predicate": [{
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": typed("retry.host.previous_hosts.v3.PreviousHostsPredicate", json!({}))
        }],
        "host_selection_retry_max_attempts": 10,
        "retry_back_off": {"base_interval": "0.005s", "max_interval": "0.05s"}
    })
}

/// Leaves out for a second who could not be reached; errors that somebody answers count nothing.
fn unreachable(most_percent: u32) -> Value {
    json!({
        "split_external_local_origin_errors": true,
        "consecutive_local_origin_failure": 1,
        "enforcing_consecutive_local_origin_failure": 100,
        "enforcing_local_origin_success_rate": 0,
        "enforcing_success_rate": 0,
        "enforcing_consecutive_5xx": 0,
        "interval": "1s",
        "base_ejection_time": "1s",
        "max_ejection_time": "1s",
        "max_ejection_percent": most_percent
    })
}

/// The picker tells the endpoints, and with each request in which order to try them. Without the picker Envoy keeps
/// what it was told and chooses by itself (design note 0011).
fn engines() -> Value {
    let policy = |name: &str, config: Value| {
        json!({"policies": [{"typed_extension_config": {
            "name": format!("envoy.load_balancing_policies.{name}"),
            "typed_config": config
        }}]})
    };
    let any = policy(
        "least_request",
        typed("load_balancing_policies.least_request.v3.LeastRequest", json!({})),
    );
    json!({
        "name": ENGINES,
        "type": "EDS",
        "connect_timeout": "10s",
        "circuit_breakers": breakers(),
        // A dead engine has no requests: without this it would be the favourite of those that look for another one.
        "outlier_detection": unreachable(90),
        "eds_cluster_config": {"eds_config": {
            "resource_api_version": "V3",
            // No limit: a router is not ready before Envoy knows the engines.
            "initial_fetch_timeout": "0s",
            "api_config_source": {
                "api_type": "GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {
                    "cluster_name": "ext_proc",
                    "retry_policy": {"retry_back_off": {"base_interval": "0.1s", "max_interval": "1s"}}
                }}]
            }
        }},
        "load_balancing_policy": policy("override_host", typed(
            "load_balancing_policies.override_host.v3.OverrideHost",
            json!({
                "override_host_sources": [{"header": "x-gateway-destination-endpoint"}],
                "fallback_policy": any
            })
        ))
    })
}

fn ext_proc(fail_open: bool, secure: bool) -> Value {
    let mut cluster = json!({
        "name": "ext_proc",
        "type": "STATIC",
        "lb_policy": "LEAST_REQUEST",
        "connect_timeout": "86400s",
        "circuit_breakers": breakers(),
        "health_checks": [{
            "timeout": "2s",
            "interval": "10s",
            "unhealthy_threshold": 3,
            "healthy_threshold": 2,
            "grpc_health_check": {"service_name": "envoy.service.ext_proc.v3.ExternalProcessor"}
        }],
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": typed(
                "upstreams.http.v3.HttpProtocolOptions",
                json!({"explicit_http_config": {"http2_protocol_options": {}}})
            )
        },
        "load_assignment": {
            "cluster_name": "ext_proc",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket("127.0.0.1", names::EXT_PROC_PORT)}}]}]
        }
    });
    if fail_open {
        // Envoy lets a request pass only if nothing of it was sent to the picker: it has to know before that nobody is
        // there, by the failure of an earlier request or by a check.
        cluster["common_lb_config"] = json!({"healthy_panic_threshold": {"value": 0}});
        // Not readiness: a picker that drains answers what still comes.
        cluster["health_checks"][0]["grpc_health_check"]["service_name"] = "serving".into();
        cluster["health_checks"][0]["interval"] = "1s".into();
        cluster["health_checks"][0]["no_traffic_interval"] = "1s".into();
        cluster["health_checks"][0]["unhealthy_threshold"] = 1.into();
        cluster["health_checks"][0]["healthy_threshold"] = 1.into();
        cluster["outlier_detection"] = unreachable(100);
    }
    if secure {
        cluster["transport_socket"] = json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": typed(
                "transport_sockets.tls.v3.UpstreamTlsContext",
                json!({"common_tls_context": {"alpn_protocols": ["h2"], "validation_context": {}}})
            )
        });
    }
    cluster
}

fn admin_cluster() -> Value {
    json!({
        "name": "admin",
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": "admin",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket("127.0.0.1", names::PROXY_ADMIN_PORT)}}]}]
        }
    })
}
