//! The command line of `llmd epp`: llm-d-router's flags, and a few of our own.
//!
//! A flag whose feature this build does not have is refused by name; none is taken and ignored. Flags
//! that cannot mean anything here (Go's profiler, zap's time encoding) are reported in the log.

mod declared;
mod pool;
mod proxy;
mod refused;

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use llmd_epp_api::Timing;
use llmd_epp_core::config::Quantity;
use llmd_process::logging::{Format, Logging, level_of_verbosity};
use llmd_process::pflag::{FlagError, Flags};
use llmd_process::tls::ServerTls;
use tracing::level_filters::LevelFilter;

use crate::datalayer::MIN_INTERVAL;
use crate::grpc::MessageLimits;
use crate::waiting;
pub use declared::flag_set;
pub use pool::{Membership, PoolOptions};
pub use proxy::{AccessLogOptions, EngineOptions, EngineTls, ProxyOptions};
use refused::{notes, refuse_removed};

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
    /// The pool and how Kubernetes is reached.
    pub pool: PoolOptions,
    /// `--disable-endpoint-subset-filter`.
    pub ignore_subset: bool,
    /// `--emit-endpoint-scores`.
    pub emit_endpoint_scores: bool,
    /// `--upstream-timing`.
    pub timing: Timing,
    /// `--config-file` or `--config-text`.
    pub config: ConfigSource,
    /// `--enable-config-reload`: follow `--config-file`.
    pub reload_config: bool,
    /// `--allow-experimental-plugins`.
    pub allow_experimental: bool,
    /// `--drain-timeout`: the longest time for which requests are taken after SIGTERM.
    pub drain_timeout: Duration,
    /// `--drain-envoy-admin-port`: of the Envoy in this pod.
    pub envoy_admin_port: Option<u16>,
    /// `--grpc-max-recv-msg-size`, `--grpc-max-send-msg-size`.
    pub messages: MessageLimits,
    /// `--max-request-body-size`, in bytes.
    pub max_request_body: usize,
    /// `--max-buffered-body-size`, in bytes.
    pub max_buffered_bodies: usize,
    /// `--no-endpoint-request-ttl` and its bounds; `None` refuses requests while the pool is empty.
    pub waiting: Option<waiting::Options>,
    /// `--refresh-metrics-interval`.
    pub refresh_metrics: Duration,
    /// `--adaptive-scraping`.
    pub adaptive_scraping: bool,
    /// `--refresh-prometheus-metrics-interval`.
    pub refresh_gauges: Duration,
    /// `--metrics-staleness-threshold`.
    pub staleness: Duration,
    /// `--health-checking`.
    pub health_on_grpc_port: bool,
    /// `--secure-serving` and what belongs to it.
    pub tls: Option<ServerTls>,
    /// TLS of the metrics port: `--metrics-cert-dir`, `--metrics-client-ca-file`; the certificate is
    /// followed.
    pub metrics_tls: Option<ServerTls>,
    /// `--enable-cert-reload`.
    pub reload_certificates: bool,
    /// `--enable-grpc-stream-metrics`.
    pub stream_metrics: bool,
    /// `--shadow`.
    pub shadow: bool,
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

impl EppOptions {
    /// Parses a command line without the program's name, with the process's environment.
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, OptionError> {
        Self::parse_with(arguments, &|name| std::env::var(name).ok())
    }

    /// As [`Self::parse`], with `environment` for `NAMESPACE` and `POD_NAME`.
    pub fn parse_with(
        arguments: impl IntoIterator<Item = OsString>,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, OptionError> {
        let flags = flag_set().parse(arguments)?;
        refuse_removed(&flags)?;
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
        let proxy = proxy::parse(&flags, address("proxy-bind-address")?)?;
        if proxy.is_some() && flags.bool("shadow") {
            return Err(OptionError::Exclusive("shadow", "proxy-port"));
        }
        Ok(Self {
            bind_address: address("bind-address")?,
            grpc_port: port(&flags, "grpc-port")?,
            health_port: port(&flags, "grpc-health-port")?,
            metrics_port: port(&flags, "metrics-port")?,
            pool: pool::parse(&flags, environment)?,
            ignore_subset: flags.bool("disable-endpoint-subset-filter"),
            emit_endpoint_scores: flags.bool("emit-endpoint-scores"),
            timing: if flags.bool("upstream-timing") {
                Timing::Upstream
            } else {
                Timing::Live
            },
            config,
            reload_config: flags.bool("enable-config-reload"),
            allow_experimental: flags.bool("allow-experimental-plugins"),
            drain_timeout: flags.duration("drain-timeout"),
            envoy_admin_port: match port(&flags, "drain-envoy-admin-port")? {
                0 => None,
                port => Some(port),
            },
            messages: MessageLimits {
                receive: size(&flags, "grpc-max-recv-msg-size")?.unwrap_or(defaults.receive),
                send: size(&flags, "grpc-max-send-msg-size")?.unwrap_or(defaults.send),
            },
            max_request_body: size(&flags, "max-request-body-size")?.unwrap_or(usize::MAX),
            max_buffered_bodies: size(&flags, "max-buffered-body-size")?.unwrap_or(usize::MAX),
            waiting: waiting(&flags)?,
            refresh_metrics: refresh_metrics.max(MIN_INTERVAL),
            adaptive_scraping: flags.bool("adaptive-scraping"),
            refresh_gauges: positive(&flags, "refresh-prometheus-metrics-interval")?,
            staleness: flags.duration("metrics-staleness-threshold"),
            health_on_grpc_port: flags.bool("health-checking"),
            tls: flags.bool("secure-serving").then(|| tls(&flags)),
            metrics_tls: metrics_tls(&flags)?,
            reload_certificates: flags.bool("enable-cert-reload"),
            stream_metrics: flags.bool("enable-grpc-stream-metrics"),
            shadow: flags.bool("shadow"),
            tracing: flags.bool("tracing"),
            deprecated_metrics: flags.bool("enable-deprecated-metrics"),
            proxy,
            logging: logging(&flags)?,
            notes,
        })
    }
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

/// Bounds are checked whether or not anybody waits.
fn waiting(flags: &Flags) -> Result<Option<waiting::Options>, OptionError> {
    let requests = flags.int("no-endpoint-max-requests");
    let max_requests = usize::try_from(requests).ok().filter(|requests| *requests > 0);
    let fix = "give a number above 0";
    let options = waiting::Options {
        ttl: flags.duration("no-endpoint-request-ttl"),
        max_requests: max_requests
            .ok_or_else(|| value("no-endpoint-max-requests", &requests.to_string(), fix))?,
        max_bytes: size(flags, "no-endpoint-max-bytes")?.unwrap_or(usize::MAX),
    };
    Ok((!options.ttl.is_zero()).then_some(options))
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
        client_ca: None,
    }
}

fn metrics_tls(flags: &Flags) -> Result<Option<ServerTls>, OptionError> {
    let directory = path(flags, "metrics-cert-dir");
    let client_ca = path(flags, "metrics-client-ca-file");
    if let (None, Some(file)) = (&directory, &client_ca) {
        let fix = "give --metrics-cert-dir too: certificates of clients need TLS";
        return Err(value("metrics-client-ca-file", &file.display().to_string(), fix));
    }
    Ok(directory.map(|directory| ServerTls {
        directory: Some(directory),
        alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        client_ca,
        ..tls(flags)
    }))
}

fn logging(flags: &Flags) -> Result<Logging, OptionError> {
    let encoder = flags.string("zap-encoder");
    let format = match encoder.as_str() {
        "json" => Format::Json,
        "" | "console" => Format::Text,
        _ => return Err(value("zap-encoder", &encoder, "use json or console")),
    };
    let given = flags.string("zap-log-level");
    let level = match given.as_str() {
        "" if flags.bool("zap-devel") && !flags.is_set("v") => level_of_verbosity(3),
        "" => level_of_verbosity(flags.int("v")),
        "info" => LevelFilter::INFO,
        "debug" => level_of_verbosity(3),
        "error" | "panic" => LevelFilter::ERROR,
        number => level_of_verbosity(
            number
                .parse()
                .map_err(|_| value("zap-log-level", &given, "use debug, info, error or a number"))?,
        ),
    };
    Ok(Logging { format, level })
}

#[cfg(test)]
mod tests;
