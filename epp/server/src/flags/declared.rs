//! The declaration of every flag, with upstream's default.

use llmd_process::pflag::FlagSet;

use super::proxy;

/// Every flag with upstream's default.
pub fn flag_set() -> FlagSet {
    let flags = FlagSet::new()
        .int("grpc-port", 9002, "port of the ext_proc service")
        .int("grpc-health-port", 9003, "port of the gRPC health service")
        .int("metrics-port", 9090, "port of metrics and debug pages")
        .string(
            "bind-address",
            "",
            "address of these three ports; empty binds all addresses",
        )
        .string(
            "pool-name",
            "",
            "name of the InferencePool; label of the pool metrics",
        )
        .string("pool-namespace", "", "namespace of the InferencePool")
        .string(
            "pool-group",
            "inference.networking.k8s.io",
            "API group of the InferencePool",
        )
        .string(
            "endpoint-selector",
            "",
            "labels of the pods, such as app=vllm; instead of pool-name, needs no InferencePool",
        )
        .string(
            "endpoint-target-ports",
            "",
            "ports of these pods, 1 to 8, such as 8000,8001",
        )
        .string(
            "endpoints",
            "",
            "addresses of engines, such as 10.0.0.1:8000,10.0.0.1:8001; instead of a pool, needs no Kubernetes",
        )
        .string(
            "kubeconfig",
            "",
            "file that says how to reach the cluster; only needed outside of it",
        )
        .bool(
            "disable-endpoint-subset-filter",
            false,
            "ignore the subset hint of the proxy",
        )
        .bool(
            "emit-endpoint-scores",
            false,
            "send the endpoints' scores as dynamic metadata",
        )
        .bool(
            "upstream-timing",
            false,
            "load counts when it is scraped and a prefix from the pick on, as upstream; a burst herds then",
        )
        .string("config-file", "", "file with an EndpointPickerConfig")
        .string("config-text", "", "an EndpointPickerConfig")
        .bool(
            "enable-config-reload",
            true,
            "follow changes of config-file without a restart",
        )
        .bool(
            "allow-experimental-plugins",
            false,
            "allow plugins of stability Alpha",
        )
        .bool(
            "ha-enable-leader-election",
            false,
            "of several replicas only the holder of a lease is ready",
        )
        .duration(
            "drain-timeout",
            "30s",
            "longest time for which requests are still taken after SIGTERM",
        )
        .string(
            "grpc-max-recv-msg-size",
            "",
            "largest gRPC message received (default 4Mi)",
        )
        .string(
            "grpc-max-send-msg-size",
            "",
            "largest gRPC message sent (default unlimited)",
        )
        .string(
            "max-request-body-size",
            "64Mi",
            "largest request body; longer ones are answered with 413",
        )
        .string(
            "max-buffered-body-size",
            "4Gi",
            "most memory for request bodies that are held, of ext_proc and of the proxy each; beyond it 429",
        )
        .bool(
            "adaptive-scraping",
            true,
            "scrape endpoints without any request a third as often; false keeps --refresh-metrics-interval for all",
        )
        .duration(
            "no-endpoint-request-ttl",
            "0s",
            "longest wait of a request while the pool has no endpoint; 0 refuses it at once with 503",
        )
        .int(
            "no-endpoint-max-requests",
            5000,
            "most requests that wait for an endpoint; beyond it 503",
        )
        .string(
            "no-endpoint-max-bytes",
            "1G",
            "most bytes of the bodies of these requests; beyond it 503",
        )
        .duration(
            "refresh-metrics-interval",
            "50ms",
            "pause between two scrapes of an engine; at least 50ms",
        )
        .duration(
            "refresh-prometheus-metrics-interval",
            "5s",
            "pause between two updates of the pool gauges",
        )
        .duration(
            "metrics-staleness-threshold",
            "2s",
            "age from which an engine's metrics are stale",
        )
        .bool("health-checking", false, "serve health on the ext_proc port too")
        .bool("secure-serving", true, "TLS on the ext_proc port")
        .string(
            "cert-path",
            "",
            "directory with tls.crt and tls.key; self-signed when empty",
        )
        .bool("enable-cert-reload", false, "follow changes in cert-path")
        .string(
            "tls-min-version",
            "",
            "lowest TLS version: VersionTLS12 or VersionTLS13",
        )
        .string(
            "tls-cipher-suites",
            "",
            "comma list of TLS cipher suites, Go's names",
        )
        .bool(
            "metrics-endpoint-auth",
            true,
            "ask the API server who may read metrics and debug pages; not with file-discovery",
        )
        .string(
            "metrics-client-ca-file",
            "",
            "file with the CA of clients of the metrics port, which need a certificate then; needs metrics-cert-dir",
        )
        .string(
            "metrics-cert-dir",
            "",
            "directory with tls.crt and tls.key of the metrics port, followed; empty serves plain HTTP",
        )
        .bool("enable-pprof", true, "Go profiles; this build has none")
        .bool(
            "enable-grpc-stream-metrics",
            false,
            "metrics of the ext_proc streams",
        )
        .bool(
            "shadow",
            false,
            "answer nothing and compare with the endpoints that serve, behind an ext_proc filter in observability_mode",
        )
        .bool("tracing", true, "export spans, see the OTEL_ variables")
        .int("v", 2, "log verbosity; 3 logs decisions")
        .shorthand("v", 'v')
        .bool("zap-devel", false, "zap's development defaults: verbosity 3")
        .string("zap-encoder", "", "log format: json or console")
        .string(
            "zap-log-level",
            "",
            "debug, info, error or a verbosity; comes before -v",
        )
        .string("zap-stacktrace-level", "", "has no effect")
        .string("zap-time-encoding", "", "has no effect")
        .string("total-queued-requests-metric", "", "deprecated, refused")
        .string("total-running-requests-metric", "", "deprecated, refused")
        .string("kv-cache-usage-percentage-metric", "", "deprecated, refused")
        .string("lora-info-metric", "", "deprecated, refused")
        .string("cache-info-metric", "", "deprecated, refused")
        .bool(
            "enable-deprecated-metrics",
            true,
            "also expose metrics under their deprecated names",
        )
        .int(
            "drain-envoy-admin-port",
            0,
            "admin port of the Envoy in this pod, which closes its client connections when the drain begins; 0: none",
        );
    proxy::declare(flags)
}
