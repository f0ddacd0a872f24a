//! What the sources that poll endpoints have in common: where a page is, and how to ask for it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use llmd_epp_api::EndpointSpec;
use serde::Deserialize;

use crate::config::parse_duration;

/// What a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageFormat {
    /// Prometheus text.
    Metrics,
    /// OpenAI's list of models.
    Models,
}

/// Whose page it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageOf {
    /// The endpoint's.
    Endpoint,
    /// The endpoint's node's.
    Node,
    /// Of the address in the endpoint's labels `metricsAddress` and `metricsPort`, where it has them.
    Labels,
}

/// What distinguishes the types of sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceType {
    /// Type name in configurations.
    pub name: &'static str,
    /// What its pages are.
    pub format: PageFormat,
    /// Whose they are.
    pub of: PageOf,
    /// Default path.
    pub path: &'static str,
    /// Default port; the endpoint's own when absent.
    pub port: Option<u16>,
    /// Whether TLS with verification is the default.
    pub is_secure: bool,
}

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
    #[error(
        "TLS with verification needs caCertPath: public roots sign no pod addresses; or set insecureSkipVerify"
    )]
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
pub struct PolledSource {
    /// Its type.
    pub source_type: SourceType,
    /// Path and query of the page.
    pub path: String,
    /// Port of the page; the endpoint's own when absent.
    pub port: Option<u16>,
    /// `None` for plain HTTP.
    pub tls: Option<Tls>,
    /// Wanted interval; each tick when absent.
    pub interval: Option<Duration>,
}

impl PolledSource {
    /// Validates the parameters.
    pub fn new(source_type: SourceType, parameters: &Parameters) -> Result<Self, ParameterError> {
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
            None | Some("") => source_type.is_secure,
            Some("http") => false,
            Some("https") => true,
            Some(other) => return Err(ParameterError::Scheme(other.to_owned())),
        };
        let path = path
            .as_deref()
            .filter(|path| !path.is_empty())
            .unwrap_or(source_type.path);
        if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ParameterError::Path(path.to_owned()));
        }
        let port = match port {
            None => source_type.port,
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
        let skip_verify = insecure_skip_verify.unwrap_or(!source_type.is_secure);
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
            source_type,
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

    /// Where the page of an endpoint is; `None` where nobody says so.
    pub fn address(&self, endpoint: &EndpointSpec) -> Option<SocketAddr> {
        let port = self.port.unwrap_or(endpoint.port);
        match self.source_type.of {
            PageOf::Endpoint => Some(SocketAddr::new(endpoint.address, port)),
            PageOf::Node => Some(SocketAddr::new(endpoint.reach.node?, port)),
            PageOf::Labels => Some(
                endpoint
                    .reach
                    .metrics
                    .unwrap_or(SocketAddr::new(endpoint.address, port)),
            ),
        }
    }

    /// The name by which the other side is known, where it is known by one.
    pub fn host<'a>(&self, endpoint: &'a EndpointSpec) -> Option<&'a str> {
        if self.source_type.of != PageOf::Labels {
            return None;
        }
        let labelled = endpoint.labels.get("metricsAddress").map(String::as_str);
        labelled
            .or(endpoint.reach.host.as_deref())
            .filter(|host| host.parse::<std::net::IpAddr>().is_err())
    }
}
