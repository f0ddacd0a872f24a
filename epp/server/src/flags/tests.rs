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
        ("--metrics-cert-dir=/x", "metrics-cert-dir"),
        ("--total-queued-requests-metric=vllm:x", "engineConfigs"),
        ("--cache-info-metric=", "cache-info-metric"),
        ("--config-file=a --config-text=b", "config-text"),
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
