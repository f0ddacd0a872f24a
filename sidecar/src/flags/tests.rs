use super::*;

fn parse(line: &str) -> Result<SidecarOptions, OptionError> {
    SidecarOptions::parse(line.split_whitespace().map(OsString::from), |_| None)
}

fn refused(line: &str) -> String {
    parse(line).expect_err(line).to_string()
}

#[test]
fn defaults_are_upstreams() {
    let options = parse("").expect("valid");
    assert_eq!(
        (options.port, options.engine_port, options.ranks),
        (8000, 8200, 1)
    );
    assert!(options.tls.is_some() && options.metrics_port.is_none() && !options.samples);
    assert_eq!(
        (options.drain, options.on_failure),
        (Duration::from_secs(60), OnFailure::Fallback)
    );
}

#[test]
fn older_names_count_unless_the_newer_one_is_given() {
    let options = parse("--vllm-port=9000 --secure-proxy=false").expect("valid");
    assert_eq!((options.engine_port, options.tls.is_none()), (9000, true));
    let options = parse("--vllm-port=9000 --model-server-port=9001").expect("valid");
    assert_eq!(options.engine_port, 9001);
}

#[test]
fn what_cannot_be_done_is_named_with_its_fix() {
    for (line, text) in [
        ("--kv-connector=other", "shared-storage"),
        (
            "--kv-connector=sglang --moriio-write-mode",
            "--kv-connector=nixlv2",
        ),
        ("--moriio-parallel-dispatch", "--moriio-write-mode"),
        ("--moriio-write-mode", "POD_IP"),
        (
            "--moriio-write-mode --moriio-local-pod-ip=a --moriio-dp-size=4 --moriio-dp-size-local=1 --moriio-remote-hosts=a,b",
            "names 2 pods",
        ),
        ("--ec-connector=other", "ec-nixl or ec-example"),
        ("--enable-ssrf-protection", "namespace/name"),
        (
            "--enable-ssrf-protection --inference-pool=a/b/c",
            "namespace/name",
        ),
        (
            "--enable-ssrf-protection --inference-pool=a --pool-group=b",
            "inference.networking.x-k8s.io",
        ),
        ("--enable-tls=engine", "prefiller, decoder and encoder"),
        ("--data-parallel-size=0", "from 1 to 1024"),
        ("--port=65535 --data-parallel-size=2", "above 65535"),
        ("--prefill-max-retries=1 --prefill-retry-backoff=0s", "above 0"),
        ("--prefill-failure=maybe", "fallback or error"),
        ("--nonsense", "unknown flag: --nonsense"),
        ("--configuration={nonsense:1}", "nonsense"),
        ("--configuration-file=/does/not/exist", "/does/not/exist"),
    ] {
        let error = refused(line);
        assert!(error.contains(text), "{line}: {error}");
    }
    assert!(parse("--enable-ssrf-protection=false --tracing=false --ec-connector=").is_ok());
}

#[test]
fn flags_win_over_the_configuration() {
    let options =
        parse("--configuration={\"port\":1000,\"data-parallel-size\":2} --port=2000").expect("valid");
    assert_eq!((options.port, options.ranks), (2000, 2));
}

#[test]
fn what_has_no_effect_is_told() {
    let options = parse("--inference-pool=ns/pool").expect("valid");
    assert_eq!(
        options.notes,
        ["--inference-pool has no effect without --enable-ssrf-protection=true"]
    );
}

#[test]
fn a_pod_ip_that_is_none_is_refused() {
    let with =
        |value: &str| SidecarOptions::parse([], |name: &str| (name == "POD_IP").then(|| value.to_owned()));
    assert_eq!(with("").expect("unset").pod, None);
    assert_eq!(
        with("fd00::1").expect("valid").pod,
        Some("fd00::1".parse().expect("valid"))
    );
    let error = with("pod-1").expect_err("refused").to_string();
    assert!(error.contains("POD_IP") && error.contains("\"pod-1\""), "{error}");
}

#[test]
fn ports_come_from_the_environment_unless_the_flag_is_given() {
    let with = |line: &str, variable: &'static str, value: &'static str| {
        let arguments = line.split_whitespace().map(OsString::from);
        SidecarOptions::parse(arguments, move |name| {
            (name == variable).then(|| value.to_owned())
        })
    };
    let tier =
        |line, value| with(line, "P2P_CONNECTOR_PORT", value).map(|options| options.peers.tier_of("a:8000"));
    assert_eq!(tier("", "").expect("unset"), 7777);
    assert_eq!(tier("", "7000").expect("valid"), 7000);
    assert_eq!(tier("--p2p-connector-port=7001", "7000").expect("valid"), 7001);
    let error = tier("", "none").expect_err("refused").to_string();
    assert!(
        error.contains("P2P_CONNECTOR_PORT") && error.contains("\"none\""),
        "{error}"
    );
}

#[test]
fn tls_is_by_kind_of_engine() {
    let options = parse("--enable-tls=prefiller,decoder --tls-insecure-skip-verify=decoder").expect("valid");
    let (prefiller, decoder) = (options.engine_tls.prefiller, options.engine_tls.decoder);
    assert!(prefiller.is_on && !prefiller.takes_any && decoder.is_on && decoder.takes_any);
    assert!(!options.engine_tls.encoder.is_on);
}

#[test]
fn a_pool_without_a_namespace_is_in_default() {
    let options = parse("--enable-ssrf-protection --inference-pool=p").expect("valid");
    let pool = options.pool.expect("a pool");
    assert_eq!(
        (pool.namespace.as_str(), pool.name.as_str(), pool.version),
        ("default", "p", "v1")
    );
}
