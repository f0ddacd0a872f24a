use super::*;

fn parse(line: &str) -> Result<EppOptions, OptionError> {
    EppOptions::parse_with(line.split_whitespace().map(OsString::from), &|_| None)
}

#[test]
fn defaults_are_upstreams() {
    let options = parse("").expect("valid");
    assert_eq!(
        (options.grpc_port, options.health_port, options.metrics_port),
        (9002, 9003, 9090)
    );
    assert_eq!(options.refresh_metrics, Duration::from_millis(50));
    assert_eq!(options.refresh_gauges, Duration::from_secs(5));
    assert_eq!(options.staleness, Duration::from_secs(2));
    assert_eq!(options.drain_timeout, Duration::from_secs(30));
    assert_eq!(options.messages.receive, 4 << 20);
    assert_eq!(
        (options.config, options.pool.name.as_str()),
        (ConfigSource::Default, "epp")
    );
    assert!(options.tls.is_some() && options.tracing && options.deprecated_metrics);
    assert!(options.reload_config);
    assert_eq!((options.proxy, options.bind_address), (None, None));
}

#[test]
fn the_charts_arguments_are_taken_unchanged() {
    let line = "--pool-name pool --pool-namespace default --pool-group inference.networking.k8s.io \
                --zap-encoder json --config-file /config/default-plugins.yaml -v=2 --secure-serving=false \
                --grpc-port=9002 --grpc-health-port=9003 --metrics-port 9090";
    let options = parse(line).expect("valid");
    assert_eq!(options.pool.name, "pool");
    assert_eq!(
        options.config,
        ConfigSource::File("/config/default-plugins.yaml".into())
    );
    assert!(options.tls.is_none());
    assert_eq!(options.logging.format, Format::Json);
}

#[test]
fn sizes_take_quantities_with_and_without_b() {
    for (text, bytes) in [
        ("4Mi", 4 << 20),
        ("4MiB", 4 << 20),
        ("16M", 16_000_000),
        ("1024", 1024),
    ] {
        let options = parse(&format!("--grpc-max-recv-msg-size={text}")).expect("valid");
        assert_eq!(options.messages.receive, bytes, "{text}");
    }
    let error = parse("--max-request-body-size=much")
        .expect_err("refused")
        .to_string();
    assert!(
        error.contains("max-request-body-size") && error.contains("much"),
        "{error}"
    );
}

#[test]
fn what_cannot_be_obeyed_is_refused_by_name() {
    for (line, name) in [
        ("--metrics-client-ca-file=/x", "metrics-cert-dir"),
        ("--proxy-client-ca-file=/x", "proxy-cert-dir"),
        ("--proxy-max-requests=0", "proxy-max-requests"),
        ("--proxy-access-log=xml", "json or text"),
        ("--proxy-engine-protocol=h3", "http/1.1 or h2"),
        ("--proxy-engine-tls", "proxy-engine-ca-file"),
        (
            "--proxy-engine-tls --proxy-engine-ca-file=/x --proxy-engine-insecure-skip-verify",
            "cannot be used together",
        ),
        ("--proxy-engine-ca-file=/x", "give --proxy-engine-tls"),
        ("--proxy-engine-insecure-skip-verify", "give --proxy-engine-tls"),
        ("--proxy-access-log-file=/l", "give --proxy-access-log"),
        ("--proxy-client-stall-timeout=0s", "proxy-client-stall-timeout"),
        ("--total-queued-requests-metric=vllm:x", "engineConfigs"),
        ("--cache-info-metric=", "cache-info-metric"),
        ("--config-file=a --config-text=b", "config-text"),
        ("--shadow --proxy-port=1", "cannot be used together"),
        ("--grpc-port=70000", "65535"),
        (
            "--refresh-prometheus-metrics-interval=0s",
            "refresh-prometheus-metrics-interval",
        ),
        ("--bind-address=localhost", "IP address"),
        ("--zap-encoder=xml", "zap-encoder"),
        ("--unknown", "unknown flag: --unknown"),
    ] {
        let error = parse(line).expect_err(line).to_string();
        assert!(error.contains(name), "{line}: {error}");
    }
}

#[test]
fn flags_without_effect_are_noted() {
    let options = parse("--enable-pprof=true --zap-time-encoding=iso8601 --refresh-metrics-interval=1ms")
        .expect("valid");
    assert_eq!(options.notes.len(), 3, "{:?}", options.notes);
    assert_eq!(options.refresh_metrics, Duration::from_millis(50));
}

/// One flag: its default, another value, and what has to be given beside it for it to mean something.
/// An empty other value: it is refused, whatever it says.
type Row = (&'static str, &'static str, &'static str, &'static str);

/// Upstream's flags with upstream's defaults (sheet epp-core §18).
const UPSTREAM: &[Row] = &[
    ("grpc-port", "9002", "1", ""),
    ("grpc-health-port", "9003", "1", ""),
    ("metrics-port", "9090", "1", ""),
    ("pool-name", "", "p", ""),
    ("pool-namespace", "", "n", ""),
    (
        "pool-group",
        "inference.networking.k8s.io",
        "inference.networking.x-k8s.io",
        "--pool-name=p",
    ),
    ("endpoint-selector", "", "a=b", "--endpoint-target-ports=1"),
    (
        "endpoint-target-ports",
        "",
        "1,2",
        "--endpoint-selector=a=b --endpoint-target-ports=1",
    ),
    ("disable-endpoint-subset-filter", "false", "true", ""),
    ("emit-endpoint-scores", "false", "true", ""),
    ("config-file", "", "/f", ""),
    ("config-text", "", "{}", ""),
    ("allow-experimental-plugins", "false", "true", ""),
    ("ha-enable-leader-election", "false", "true", ""),
    ("drain-timeout", "30s", "1s", ""),
    ("grpc-max-recv-msg-size", "", "1Mi", ""),
    ("grpc-max-send-msg-size", "", "1Mi", ""),
    ("refresh-metrics-interval", "50ms", "60ms", ""),
    ("refresh-prometheus-metrics-interval", "5s", "1s", ""),
    ("metrics-staleness-threshold", "2s", "1s", ""),
    ("health-checking", "false", "true", ""),
    ("secure-serving", "true", "false", ""),
    ("cert-path", "", "/d", ""),
    ("enable-cert-reload", "false", "true", "--cert-path=/d"),
    ("tls-min-version", "", "VersionTLS13", ""),
    ("tls-cipher-suites", "", "TLS_AES_128_GCM_SHA256", ""),
    ("metrics-endpoint-auth", "true", "false", ""),
    ("metrics-cert-dir", "", "/d", ""),
    ("metrics-client-ca-file", "", "/f", "--metrics-cert-dir=/d"),
    ("enable-grpc-stream-metrics", "false", "true", ""),
    ("tracing", "true", "false", ""),
    ("v", "2", "5", ""),
    ("zap-devel", "false", "true", ""),
    ("zap-encoder", "", "json", ""),
    ("zap-log-level", "", "error", ""),
    // They cannot mean anything here, and the log says so.
    ("enable-pprof", "true", "true", ""),
    ("zap-stacktrace-level", "", "error", ""),
    ("zap-time-encoding", "", "iso8601", ""),
    // Removed upstream: setting them is an error there as well.
    ("total-queued-requests-metric", "", "", ""),
    ("total-running-requests-metric", "", "", ""),
    ("kv-cache-usage-percentage-metric", "", "", ""),
    ("lora-info-metric", "", "", ""),
    ("cache-info-metric", "", "", ""),
];

/// Our own flags.
const OWN: &[Row] = &[
    ("bind-address", "", "127.0.0.1", ""),
    ("kubeconfig", "", "/k", ""),
    ("endpoints", "", "10.0.0.1:1,[fd00::1]:1", ""),
    ("enable-config-reload", "true", "false", ""),
    ("max-request-body-size", "64Mi", "1Mi", ""),
    ("max-buffered-body-size", "4Gi", "1Gi", ""),
    ("adaptive-scraping", "true", "false", ""),
    ("no-endpoint-request-ttl", "0s", "1m", ""),
    (
        "no-endpoint-max-requests",
        "5000",
        "1",
        "--no-endpoint-request-ttl=1m",
    ),
    (
        "no-endpoint-max-bytes",
        "1G",
        "1Mi",
        "--no-endpoint-request-ttl=1m",
    ),
    ("enable-deprecated-metrics", "true", "false", ""),
    ("upstream-timing", "false", "true", ""),
    ("shadow", "false", "true", ""),
    ("proxy-port", "0", "1", ""),
    ("proxy-bind-address", "0.0.0.0", "127.0.0.1", "--proxy-port=1"),
    ("proxy-api-key-file", "", "/k", "--proxy-port=1"),
    ("proxy-stream-continuation", "true", "false", "--proxy-port=1"),
    ("proxy-cert-dir", "", "/c", "--proxy-port=1"),
    (
        "proxy-client-ca-file",
        "",
        "/ca",
        "--proxy-port=1 --proxy-cert-dir=/c",
    ),
    ("proxy-trust-forwarded-headers", "false", "true", "--proxy-port=1"),
    ("proxy-access-log", "", "json", "--proxy-port=1"),
    (
        "proxy-access-log-file",
        "",
        "/l",
        "--proxy-port=1 --proxy-access-log=text",
    ),
    ("proxy-engine-protocol", "", "h2", "--proxy-port=1"),
    (
        "proxy-engine-tls",
        "false",
        "true",
        "--proxy-port=1 --proxy-engine-insecure-skip-verify",
    ),
    (
        "proxy-engine-ca-file",
        "",
        "/ca",
        "--proxy-port=1 --proxy-engine-tls",
    ),
    (
        "proxy-engine-server-name",
        "",
        "engine",
        "--proxy-port=1 --proxy-engine-tls --proxy-engine-insecure-skip-verify",
    ),
    (
        "proxy-engine-insecure-skip-verify",
        "false",
        "true",
        "--proxy-port=1 --proxy-engine-tls",
    ),
    ("proxy-request-head-timeout", "30s", "1s", "--proxy-port=1"),
    ("proxy-request-idle-timeout", "1m", "1s", "--proxy-port=1"),
    ("proxy-request-body-timeout", "10m", "1s", "--proxy-port=1"),
    ("proxy-client-idle-timeout", "5m", "1s", "--proxy-port=1"),
    ("proxy-client-stall-timeout", "5m", "1s", "--proxy-port=1"),
    ("proxy-connect-timeout", "5s", "1s", "--proxy-port=1"),
    ("proxy-response-start-timeout", "1h", "1s", "--proxy-port=1"),
    ("proxy-response-idle-timeout", "10m", "1s", "--proxy-port=1"),
    ("proxy-request-timeout", "0s", "1s", "--proxy-port=1"),
    ("proxy-max-connections", "40000", "1", "--proxy-port=1"),
    ("proxy-max-requests", "40000", "1", "--proxy-port=1"),
    ("drain-envoy-admin-port", "0", "1", ""),
];

#[test]
fn every_flag_has_its_default_and_none_is_taken_and_ignored() {
    let shown = |line: &str| parse(line).map(|options| format!("{options:?}"));
    for (name, default, other, beside) in UPSTREAM.iter().chain(OWN) {
        if other.is_empty() {
            let error = shown(&format!("--{name}=x")).expect_err(name).to_string();
            assert!(error.contains(name), "{name}: {error}");
            continue;
        }
        let without = shown(beside);
        if let Ok(without) = &without
            && !beside.contains(name)
            && !["", "true"].contains(default)
        {
            let with_default = shown(&format!("{beside} --{name}={default}")).expect(name);
            assert_eq!(with_default, *without, "the default of {name} is not {default}");
        }
        let with = shown(&format!("{beside} --{name}={other}")).expect(name);
        assert_ne!(Some(with), without.ok(), "{name} is taken and ignored");
    }
}

#[test]
fn the_table_is_complete() {
    let usage = flag_set().usage("epp");
    let mut declared: Vec<&str> = usage
        .lines()
        .filter_map(|line| line.trim_start().split("--").nth(1)?.split([' ', '=']).next())
        .collect();
    let mut listed: Vec<&str> = UPSTREAM.iter().chain(OWN).map(|(name, ..)| *name).collect();
    declared.sort_unstable();
    listed.sort_unstable();
    assert_eq!(declared, listed);
}
