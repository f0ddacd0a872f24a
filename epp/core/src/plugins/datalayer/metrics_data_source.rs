//! `metrics-data-source`: polls each endpoint's Prometheus page.
//!
//! | parameter | default |
//! |---|---|
//! | `scheme` | `http` (or `https`) |
//! | `path` | `/metrics` |
//! | `port` | the endpoint's port |
//! | `insecureSkipVerify` | true |
//! | `caCertPath`, `clientCertPath`, `clientKeyPath` | none; PEM files, for `https` |
//! | `interval` | every tick of `--refresh-metrics-interval` |
//!
//! This file holds the parameters; the server crate opens the connections.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use llmd_epp_api::registry::Component;
use llmd_epp_api::{BuildError, Plugin, PluginType, Stability};
use serde::Deserialize;

use crate::config::parse_duration;

/// Type name in configurations.
pub const TYPE: &str = "metrics-data-source";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Beta,
    default_producer_of: &[],
    build: |context| {
        let built = MetricsDataSource::new(&context.parameters()?)
            .map_err(|error| BuildError::Shape(error.to_string()))?;
        Ok(Plugin::component(Component::DataSource(Arc::new(built))))
    },
};

/// Parameters as written in the configuration.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Parameters {
    /// `http` or `https`.
    pub scheme: Option<String>,
    /// Absolute path of the page, with an optional query.
    pub path: Option<String>,
    /// Port of the page, 1..=65535.
    pub port: Option<i64>,
    /// Accept any certificate.
    pub insecure_skip_verify: Option<bool>,
    /// PEM bundle that signs the engines' certificates.
    pub ca_cert_path: Option<PathBuf>,
    /// PEM client certificate chain.
    pub client_cert_path: Option<PathBuf>,
    /// PEM key of the client certificate.
    pub client_key_path: Option<PathBuf>,
    /// Poll interval, Go duration; rounded to the tick.
    pub interval: Option<String>,
}

/// Why the parameters were refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// A scheme other than the two.
    #[error("scheme '{0}' is not supported; use http or https")]
    Scheme(String),
    /// A path that cannot be asked for.
    #[error("path '{0}' must begin with '/' and hold only visible ASCII")]
    Path(String),
    /// A port out of range.
    #[error("port {0} is out of range; use 1 to 65535")]
    Port(i64),
    /// One half of a client identity.
    #[error("clientCertPath and clientKeyPath must be set together")]
    ClientIdentity,
    /// TLS files without TLS.
    #[error("{0} needs scheme https")]
    NeedsHttps(&'static str),
    /// Verification without anything to verify against.
    #[error("insecureSkipVerify false needs caCertPath: public roots sign no pod addresses")]
    NeedsCa,
    /// An interval that is no positive Go duration.
    #[error("interval '{0}' must be a positive duration such as 50ms or 1s")]
    Interval(String),
}

/// TLS of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Accept any certificate.
    pub skip_verify: bool,
    /// Trusted PEM bundle; the public roots are never trusted for pod addresses.
    pub ca: Option<PathBuf>,
    /// PEM chain and key that identify us.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// A validated source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsDataSource {
    /// Path and query of the page.
    pub path: String,
    /// Port of the page; the endpoint's own when absent.
    pub port: Option<u16>,
    /// `None` for plain HTTP.
    pub tls: Option<Tls>,
    /// Wanted interval; each tick when absent.
    pub interval: Option<Duration>,
}

impl MetricsDataSource {
    /// Validates the parameters.
    pub fn new(parameters: &Parameters) -> Result<Self, ParameterError> {
        let Parameters {
            scheme,
            path,
            port,
            insecure_skip_verify,
            ca_cert_path,
            client_cert_path,
            client_key_path,
            interval,
        } = parameters;
        let https = match scheme.as_deref() {
            None | Some("" | "http") => false,
            Some("https") => true,
            Some(other) => return Err(ParameterError::Scheme(other.to_owned())),
        };
        let path = path
            .as_deref()
            .filter(|path| !path.is_empty())
            .unwrap_or("/metrics");
        if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ParameterError::Path(path.to_owned()));
        }
        let port = match port {
            None => None,
            Some(port) => match u16::try_from(*port) {
                Ok(valid) if valid > 0 => Some(valid),
                _ => return Err(ParameterError::Port(*port)),
            },
        };
        if client_cert_path.is_some() != client_key_path.is_some() {
            return Err(ParameterError::ClientIdentity);
        }
        if !https {
            for (name, value) in [("caCertPath", ca_cert_path), ("clientCertPath", client_cert_path)] {
                if value.is_some() {
                    return Err(ParameterError::NeedsHttps(name));
                }
            }
        }
        let skip_verify = insecure_skip_verify.unwrap_or(true);
        if https && !skip_verify && ca_cert_path.is_none() {
            return Err(ParameterError::NeedsCa);
        }
        let interval = match interval.as_deref().filter(|text| !text.is_empty()) {
            None => None,
            Some(text) => match parse_duration(text) {
                Ok(interval) if !interval.is_zero() => Some(interval),
                _ => return Err(ParameterError::Interval(text.to_owned())),
            },
        };
        Ok(Self {
            path: path.to_owned(),
            port,
            tls: https.then(|| Tls {
                skip_verify,
                ca: ca_cert_path.clone(),
                identity: client_cert_path.clone().zip(client_key_path.clone()),
            }),
            interval,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(yaml: &str) -> Result<MetricsDataSource, ParameterError> {
        MetricsDataSource::new(&serde_yaml::from_str(yaml).expect("parameters"))
    }

    #[test]
    fn defaults_are_those_of_upstream() {
        let plain = MetricsDataSource {
            path: "/metrics".to_owned(),
            port: None,
            tls: None,
            interval: None,
        };
        assert_eq!(built("{}"), Ok(plain));
    }

    #[test]
    fn https_takes_its_files() {
        let source =
            built("{scheme: https, port: 9443, interval: 1m0.5s, caCertPath: ca.pem}").expect("valid");
        let tls = source.tls.expect("https");
        assert_eq!((tls.skip_verify, tls.ca), (true, Some(PathBuf::from("ca.pem"))));
        assert_eq!(
            (source.port, source.interval),
            (Some(9443), Some(Duration::from_millis(60_500)))
        );
    }

    #[test]
    fn wrong_values_name_the_field() {
        for (yaml, word) in [
            ("{scheme: ftp}", "scheme 'ftp'"),
            ("{path: metrics}", "path 'metrics'"),
            ("{path: \"/a b\"}", "path '/a b'"),
            ("{port: 0}", "port 0"),
            ("{port: 65536}", "port 65536"),
            ("{scheme: https, clientCertPath: a}", "clientKeyPath"),
            ("{caCertPath: a}", "caCertPath needs scheme https"),
            ("{scheme: https, insecureSkipVerify: false}", "needs caCertPath"),
            ("{interval: 50}", "interval '50'"),
            ("{interval: 0s}", "interval '0s'"),
            ("{interval: -1s}", "interval '-1s'"),
            ("{interval: 5parsecs}", "interval '5parsecs'"),
        ] {
            let error = built(yaml).expect_err(yaml).to_string();
            assert!(error.contains(word), "{yaml}: {error}");
        }
    }
}
