//! The command line of `llmd epp`: llm-d-router's flags, and a few of our own.
//!
//! A flag whose feature this build does not have is refused by name; none is taken and ignored. Flags
//! that cannot mean anything here (Go's profiler, zap's time encoding) are reported in the log.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use llmd_epp_core::config::Quantity;
use llmd_process::logging::{Format, Logging, level_of_verbosity};
use llmd_process::pflag::{FlagError, FlagSet, Flags};
use llmd_process::tls::ServerTls;

use crate::datalayer::MIN_INTERVAL;
use crate::grpc::MessageLimits;

/// Pool name of upstream's mode without Kubernetes.
const DEFAULT_POOL: &str = "epp";

/// Why a command line cannot be obeyed.
#[derive(Debug, thiserror::Error)]
pub enum OptionError {
    /// Not a command line of this role.
    #[error(transparent)]
    Flag(#[from] FlagError),
    /// A value out of its range.
    #[error("invalid argument {value:?} for \"--{flag}\" flag: {fix}")]
    Value {
        /// The flag.
        flag: &'static str,
        /// What was given.
        value: String,
        /// What it may be.
        fix: String,
    },
    /// Flags that exclude each other.
    #[error("--{0} and --{1} cannot be used together: give one of them")]
    Exclusive(&'static str, &'static str),
    /// A feature this build does not have.
    #[error("--{flag} is not supported by this build: {fix}")]
    Unsupported {
        /// The flag.
        flag: &'static str,
        /// What to do instead.
        fix: &'static str,
    },
    /// The metric flags that upstream removed.
    #[error(
        "--{0} is deprecated and cannot be set: engine metrics are configured by engineConfigs of the core-metrics-extractor plugin"
    )]
    MetricFlag(&'static str),
}

/// Where the configuration comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigSource {
    /// Upstream's defaults.
    Default,
    /// `--config-file`.
    File(PathBuf),
    /// `--config-text`.
    Text(String),
}

/// The built-in HTTP proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyOptions {
    /// `--proxy-bind-address`.
    pub address: IpAddr,
    /// `--proxy-port`.
    pub port: u16,
    /// `--proxy-api-key-file`.
    pub api_key_file: Option<PathBuf>,
}

/// A command line that makes sense.
#[derive(Clone, Debug)]
pub struct EppOptions {
    /// Address of the `ext_proc`, health and metrics listeners; `None` is every address, as upstream.
    pub bind_address: Option<IpAddr>,
    /// `--grpc-port`.
    pub grpc_port: u16,
    /// `--grpc-health-port`.
    pub health_port: u16,
    /// `--metrics-port`.
    pub metrics_port: u16,
    /// Label `name` of the pool metrics.
    pub pool_name: String,
    /// `--disable-endpoint-subset-filter`.
    pub ignore_subset: bool,
    /// `--emit-endpoint-scores`.
    pub emit_endpoint_scores: bool,
    /// `--config-file` or `--config-text`.
    pub config: ConfigSource,
    /// `--allow-experimental-plugins`.
    pub allow_experimental: bool,
    /// `--drain-timeout`.
    pub drain_timeout: Duration,
    /// `--grpc-max-recv-msg-size`, `--grpc-max-send-msg-size`.
    pub messages: MessageLimits,
    /// `--max-request-body-size`, in bytes.
    pub max_request_body: usize,
    /// `--refresh-metrics-interval`.
    pub refresh_metrics: Duration,
    /// `--refresh-prometheus-metrics-interval`.
    pub refresh_gauges: Duration,
    /// `--metrics-staleness-threshold`.
    pub staleness: Duration,
    /// `--health-checking`.
    pub health_on_grpc_port: bool,
    /// `--secure-serving` and what belongs to it.
    pub tls: Option<ServerTls>,
    /// `--enable-cert-reload`.
    pub reload_certificates: bool,
    /// `--enable-grpc-stream-metrics`.
    pub stream_metrics: bool,
    /// `--tracing`.
    pub tracing: bool,
    /// `--enable-deprecated-metrics`.
    pub deprecated_metrics: bool,
    /// The built-in proxy, when it has a port.
    pub proxy: Option<ProxyOptions>,
    /// Verbosity and format.
    pub logging: Logging,
    /// Lines to log at start about flags that have no effect.
    pub notes: Vec<String>,
}

/// Every flag with upstream's default.
pub fn flag_set() -> FlagSet {
    FlagSet::new()
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
            "label selector of the endpoints (not in this build)",
        )
        .string(
            "endpoint-target-ports",
            "",
            "ports for endpoint-selector (not in this build)",
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
        .string("config-file", "", "file with an EndpointPickerConfig")
        .string("config-text", "", "an EndpointPickerConfig")
        .bool(
            "allow-experimental-plugins",
            false,
            "allow plugins of stability Alpha",
        )
        .bool(
            "ha-enable-leader-election",
            false,
            "leader election (not in this build)",
        )
        .duration(
            "drain-timeout",
            "30s",
            "time for which requests are still taken after SIGTERM",
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
            "authenticate metrics readers; only inside a cluster",
        )
        .string(
            "metrics-client-ca-file",
            "",
            "CA of metrics readers (not in this build)",
        )
        .string(
            "metrics-cert-dir",
            "",
            "certificate of the metrics port (not in this build)",
        )
        .bool("enable-pprof", true, "Go profiles; this build has none")
        .bool(
            "enable-grpc-stream-metrics",
            false,
            "metrics of the ext_proc streams",
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
            "proxy-port",
            0,
            "port of the built-in HTTP proxy; 0 switches it off",
        )
        .string(
            "proxy-bind-address",
            "0.0.0.0",
            "address of the built-in HTTP proxy",
        )
        .string(
            "proxy-api-key-file",
            "",
            "file with the API keys that clients of the proxy must send",
        )
}

const METRIC_FLAGS: [&str; 5] = [
    "total-queued-requests-metric",
    "total-running-requests-metric",
    "kv-cache-usage-percentage-metric",
    "lora-info-metric",
    "cache-info-metric",
];

const IN_CLUSTER_ONLY: &str =
    "endpoints come from the file-discovery plugin; name it in dataLayer.discovery.pluginRef";

/// Flags that are refused when they are given a value other than their default.
const UNSUPPORTED: [(&str, &str); 4] = [
    ("endpoint-selector", IN_CLUSTER_ONLY),
    ("endpoint-target-ports", IN_CLUSTER_ONLY),
    (
        "metrics-client-ca-file",
        "the metrics port is plain HTTP; leave the flag out",
    ),
    (
        "metrics-cert-dir",
        "the metrics port is plain HTTP; leave the flag out",
    ),
];

impl EppOptions {
    /// Parses a command line without the program's name.
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, OptionError> {
        let flags = flag_set().parse(arguments)?;
        refuse_unsupported(&flags)?;
        let address = |name: &'static str| -> Result<Option<IpAddr>, OptionError> {
            let text = flags.string(name);
            if text.is_empty() {
                return Ok(None);
            }
            text.parse()
                .map(Some)
                .map_err(|_| value(name, &text, "give an IP address"))
        };
        let config = match (flags.string("config-file"), flags.string("config-text")) {
            (file, text) if file.is_empty() && text.is_empty() => ConfigSource::Default,
            (file, text) if text.is_empty() => ConfigSource::File(file.into()),
            (file, text) if file.is_empty() => ConfigSource::Text(text),
            _ => return Err(OptionError::Exclusive("config-file", "config-text")),
        };
        let mut notes = notes(&flags);
        let refresh_metrics = flags.duration("refresh-metrics-interval");
        if refresh_metrics < MIN_INTERVAL {
            notes.push(format!(
                "--refresh-metrics-interval is raised to {}ms",
                MIN_INTERVAL.as_millis()
            ));
        }
        let defaults = MessageLimits::default();
        let pool_name = Some(flags.string("pool-name")).filter(|name| !name.is_empty());
        let proxy = match port(&flags, "proxy-port")? {
            0 => None,
            port => Some(ProxyOptions {
                address: address("proxy-bind-address")?.unwrap_or(IpAddr::from([0, 0, 0, 0])),
                port,
                api_key_file: path(&flags, "proxy-api-key-file"),
            }),
        };
        Ok(Self {
            bind_address: address("bind-address")?,
            grpc_port: port(&flags, "grpc-port")?,
            health_port: port(&flags, "grpc-health-port")?,
            metrics_port: port(&flags, "metrics-port")?,
            pool_name: pool_name.unwrap_or_else(|| DEFAULT_POOL.to_owned()),
            ignore_subset: flags.bool("disable-endpoint-subset-filter"),
            emit_endpoint_scores: flags.bool("emit-endpoint-scores"),
            config,
            allow_experimental: flags.bool("allow-experimental-plugins"),
            drain_timeout: flags.duration("drain-timeout"),
            messages: MessageLimits {
                receive: size(&flags, "grpc-max-recv-msg-size")?.unwrap_or(defaults.receive),
                send: size(&flags, "grpc-max-send-msg-size")?.unwrap_or(defaults.send),
            },
            max_request_body: size(&flags, "max-request-body-size")?.unwrap_or(usize::MAX),
            refresh_metrics: refresh_metrics.max(MIN_INTERVAL),
            refresh_gauges: positive(&flags, "refresh-prometheus-metrics-interval")?,
            staleness: flags.duration("metrics-staleness-threshold"),
            health_on_grpc_port: flags.bool("health-checking"),
            tls: flags.bool("secure-serving").then(|| tls(&flags)),
            reload_certificates: flags.bool("enable-cert-reload"),
            stream_metrics: flags.bool("enable-grpc-stream-metrics"),
            tracing: flags.bool("tracing"),
            deprecated_metrics: flags.bool("enable-deprecated-metrics"),
            proxy,
            logging: logging(&flags)?,
            notes,
        })
    }
}

fn refuse_unsupported(flags: &Flags) -> Result<(), OptionError> {
    if let Some(name) = METRIC_FLAGS.into_iter().find(|name| flags.is_set(name)) {
        return Err(OptionError::MetricFlag(name));
    }
    if flags.bool("ha-enable-leader-election") {
        let fix = "run one replica, or several active ones without it";
        return Err(OptionError::Unsupported {
            flag: "ha-enable-leader-election",
            fix,
        });
    }
    match UNSUPPORTED
        .into_iter()
        .find(|(flag, _)| !flags.string(flag).is_empty())
    {
        Some((flag, fix)) => Err(OptionError::Unsupported { flag, fix }),
        None => Ok(()),
    }
}

/// What to tell about flags that were given and change nothing.
fn notes(flags: &Flags) -> Vec<String> {
    let mut notes = Vec::new();
    if flags.bool("metrics-endpoint-auth") {
        notes.push(
            "the metrics port does not authenticate: --metrics-endpoint-auth has no effect outside a cluster, as upstream"
                .to_owned(),
        );
    }
    if flags.is_set("enable-pprof") && flags.bool("enable-pprof") {
        notes.push("--enable-pprof has no effect: there are no Go profiles in this build".to_owned());
    }
    for name in ["zap-stacktrace-level", "zap-time-encoding"] {
        if flags.is_set(name) {
            notes.push(format!("--{name} has no effect in this build"));
        }
    }
    if flags.bool("enable-cert-reload") && flags.string("cert-path").is_empty() {
        notes.push("--enable-cert-reload has no effect without --cert-path".to_owned());
    }
    notes
}

fn value(flag: &'static str, value: &str, fix: &str) -> OptionError {
    OptionError::Value {
        flag,
        value: value.to_owned(),
        fix: fix.to_owned(),
    }
}

fn port(flags: &Flags, name: &'static str) -> Result<u16, OptionError> {
    let number = flags.int(name);
    u16::try_from(number).map_err(|_| value(name, &number.to_string(), "a port is a number from 0 to 65535"))
}

fn path(flags: &Flags, name: &str) -> Option<PathBuf> {
    Some(flags.string(name))
        .filter(|text| !text.is_empty())
        .map(PathBuf::from)
}

/// A quantity of bytes; a `B` at its end is optional (`4Mi`, `4MiB`).
fn size(flags: &Flags, name: &'static str) -> Result<Option<usize>, OptionError> {
    let text = flags.string(name);
    if text.is_empty() {
        return Ok(None);
    }
    let quantity = Quantity::from_str(text.strip_suffix('B').unwrap_or(&text)).ok();
    let bytes = quantity
        .and_then(|quantity| usize::try_from(quantity.0).ok())
        .filter(|bytes| *bytes > 0);
    bytes
        .map(Some)
        .ok_or_else(|| value(name, &text, "give a size above 0 such as 4Mi or 4194304"))
}

fn positive(flags: &Flags, name: &'static str) -> Result<Duration, OptionError> {
    let duration = flags.duration(name);
    if duration.is_zero() {
        return Err(value(name, "0s", "give a duration above 0 such as 5s"));
    }
    Ok(duration)
}

fn tls(flags: &Flags) -> ServerTls {
    let suites = flags.string("tls-cipher-suites");
    let suites = suites.split(',').map(str::trim).filter(|suite| !suite.is_empty());
    ServerTls {
        directory: path(flags, "cert-path"),
        min_version: flags.string("tls-min-version"),
        cipher_suites: suites.map(str::to_owned).collect(),
        alpn: vec![b"h2".to_vec()],
    }
}

fn logging(flags: &Flags) -> Result<Logging, OptionError> {
    let encoder = flags.string("zap-encoder");
    let format = match encoder.as_str() {
        "json" => Format::Json,
        "" | "console" => Format::Text,
        _ => return Err(value("zap-encoder", &encoder, "use json or console")),
    };
    let level = flags.string("zap-log-level");
    let verbosity = match level.as_str() {
        "" if flags.bool("zap-devel") && !flags.is_set("v") => 3,
        "" => flags.int("v"),
        "info" => 2,
        "debug" => 3,
        "error" | "panic" => 0,
        number => number
            .parse()
            .map_err(|_| value("zap-log-level", &level, "use debug, info, error or a number"))?,
    };
    Ok(Logging {
        format,
        level: level_of_verbosity(verbosity),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<EppOptions, OptionError> {
        EppOptions::parse(line.split_whitespace().map(OsString::from))
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
            (options.config, options.pool_name.as_str()),
            (ConfigSource::Default, "epp")
        );
        assert!(options.tls.is_some() && options.tracing && options.deprecated_metrics);
        assert_eq!((options.proxy, options.bind_address), (None, None));
    }

    #[test]
    fn the_charts_arguments_are_taken_unchanged() {
        let line = "--pool-name pool --pool-namespace default --pool-group inference.networking.k8s.io \
                    --zap-encoder json --config-file /config/default-plugins.yaml -v=2 --secure-serving=false \
                    --grpc-port=9002 --grpc-health-port=9003 --metrics-port 9090";
        let options = parse(line).expect("valid");
        assert_eq!(options.pool_name, "pool");
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
            ("--ha-enable-leader-election", "ha-enable-leader-election"),
            ("--endpoint-selector app=vllm", "file-discovery"),
            ("--endpoint-target-ports=8000", "endpoint-target-ports"),
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
        assert_eq!(options.notes.len(), 4, "{:?}", options.notes);
        assert_eq!(options.refresh_metrics, Duration::from_millis(50));
    }
}
