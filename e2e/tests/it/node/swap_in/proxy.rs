//! Envoy as the router chart configures it: a sidecar of the picker, or a proxy of its own before the picker's Service.

use llmd_e2e_cluster::image::ENVOY;
use serde_json::{Value, json};

/// Name of the proxy that has pods of its own, and of its Service.
pub(super) const NAME: &str = "proxy";

/// The container, which reads `/etc/envoy/envoy.yaml` from volume `config`.
pub(super) fn container() -> Value {
    json!({
        "name": "envoy-proxy",
        "image": ENVOY,
        "command": ["envoy"],
        "args": [
            "--service-node", "envoy-proxy", "--log-level", "warn", "--cpuset-threads", "--drain-strategy", "immediate",
            "--drain-time-s", "60", "-c", "/etc/envoy/envoy.yaml",
        ],
        "ports": [{"containerPort": 8081, "name": "http-8081"}, {"containerPort": 19001, "name": "metrics-19001"}],
        "readinessProbe": {
            "failureThreshold": 1, "periodSeconds": 5, "successThreshold": 1, "timeoutSeconds": 1,
            "httpGet": {"path": "/ready", "port": 19001, "scheme": "HTTP"},
        },
        "volumeMounts": [{"name": "config", "mountPath": "/etc/envoy", "readOnly": true}],
    })
}

/// The volume of the container.
pub(super) fn volume(config_map: &str) -> Value {
    json!({"name": "config", "configMap": {"name": config_map, "items": [{"key": "envoy.yaml", "path": "envoy.yaml"}]}})
}

/// The ConfigMap of the bootstrap; the picker is at `host`:9002.
pub(super) fn config_map(name: &str, host: &str) -> Value {
    // JSON is YAML
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
        "data": {"envoy.yaml": bootstrap(host).to_string()},
    })
}

/// A Deployment and Service of Envoy alone, in the place of a gateway.
pub(super) fn deployment(picker: &str) -> Vec<Value> {
    let labels = json!({"app": NAME});
    vec![
        config_map(NAME, picker),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": NAME},
            "spec": {"selector": labels, "ports": [{"name": "http", "port": 80, "targetPort": 8081}]},
        }),
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": NAME},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {"containers": [container()], "volumes": [volume(NAME)]},
                },
            },
        }),
    ]
}

fn typed(kind: &str, mut config: Value) -> Value {
    config["@type"] = format!("type.googleapis.com/envoy.extensions.{kind}").into();
    config
}

fn socket(address: &str, port: u16) -> Value {
    json!({"socket_address": {"address": address, "port_value": port}})
}

fn endpoint(address: &str, port: u16) -> Value {
    json!([{"lb_endpoints": [{"endpoint": {"address": socket(address, port)}}]}])
}

/// A listener whose requests pass `filters`, the last of which is Envoy's router.
fn listener(name: &str, port: u16, cluster: &str, filters: &[Value]) -> Value {
    let router = json!({
        "name": "envoy.filters.http.router",
        "typed_config": typed("filters.http.router.v3.Router", json!({"suppress_envoy_headers": true})),
    });
    let filters: Vec<&Value> = filters.iter().chain([&router]).collect();
    let manager = json!({
        "stat_prefix": name,
        "http_filters": filters,
        "use_remote_address": true,
        "common_http_protocol_options": {"headers_with_underscores_action": "REJECT_REQUEST"},
        "route_config": {"virtual_hosts": [{
            "name": "all", "domains": ["*"],
            "routes": [{
                "match": {"prefix": "/"},
                "route": {"cluster": cluster, "timeout": "86400s", "idle_timeout": "86400s"},
            }],
        }]},
    });
    json!({
        "name": name,
        "address": socket("0.0.0.0", port),
        "per_connection_buffer_limit_bytes": 32768,
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": typed("filters.network.http_connection_manager.v3.HttpConnectionManager", manager),
        }]}],
    })
}

fn bootstrap(host: &str) -> Value {
    let picker = json!({
        "name": "envoy.filters.http.ext_proc",
        "typed_config": typed("filters.http.ext_proc.v3.ExternalProcessor", json!({
            "grpc_service": {"envoy_grpc": {"cluster_name": "ext_proc", "authority": "localhost:9002"}, "timeout": "10s"},
            "message_timeout": "1000s",
            "processing_mode": {
                "request_header_mode": "SEND", "request_body_mode": "FULL_DUPLEX_STREAMED", "request_trailer_mode": "SEND",
                "response_header_mode": "SEND", "response_body_mode": "FULL_DUPLEX_STREAMED", "response_trailer_mode": "SEND",
            },
        })),
    });
    let ready = json!({
        "name": "envoy.filters.http.health_check",
        "typed_config": typed("filters.http.health_check.v3.HealthCheck", json!({
            "pass_through_mode": false,
            "headers": [{"name": ":path", "string_match": {"exact": "/ready"}}],
        })),
    });
    let breakers = json!({"thresholds": [{"max_connections": 40000, "max_pending_requests": 40000, "max_requests": 40000}]});
    json!({
        "admin": {"address": socket("127.0.0.1", 19000)},
        "static_resources": {
            "listeners": [
                listener("ready", 19001, "admin", &[ready]),
                listener("http-8081", 8081, "original_destination_cluster", &[picker]),
            ],
            "clusters": [
                {
                    "name": "admin", "type": "STATIC", "connect_timeout": "0.25s",
                    "load_assignment": {"cluster_name": "admin", "endpoints": endpoint("127.0.0.1", 19000)},
                },
                {
                    "name": "original_destination_cluster", "type": "ORIGINAL_DST", "connect_timeout": "1000s",
                    "lb_policy": "CLUSTER_PROVIDED", "circuit_breakers": breakers,
                    "original_dst_lb_config": {"use_http_header": true, "http_header_name": "x-gateway-destination-endpoint"},
                },
                ext_proc(host, &breakers),
            ],
        },
    })
}

fn ext_proc(host: &str, breakers: &Value) -> Value {
    let kind = if host.parse::<std::net::IpAddr>().is_ok() {
        "STATIC"
    } else {
        "STRICT_DNS"
    };
    json!({
        "name": "ext_proc", "type": kind, "connect_timeout": "86400s", "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": breakers,
        "health_checks": [{
            "timeout": "2s", "interval": "10s", "unhealthy_threshold": 3, "healthy_threshold": 2, "reuse_connection": true,
            "grpc_health_check": {"service_name": "envoy.service.ext_proc.v3.ExternalProcessor"},
            "tls_options": {"alpn_protocols": ["h2"]},
        }],
        "transport_socket": {
            "name": "envoy.transport_sockets.tls",
            "typed_config": typed(
                "transport_sockets.tls.v3.UpstreamTlsContext",
                json!({"common_tls_context": {"validation_context": {}}}),
            ),
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": typed(
                "upstreams.http.v3.HttpProtocolOptions",
                json!({"explicit_http_config": {"http2_protocol_options": {}}}),
            ),
        },
        "load_assignment": {"cluster_name": "ext_proc", "endpoints": endpoint(host, 9002)},
    })
}
