//! Why the picker does not run.

use std::io;

use llmd_epp_core::ConfigError;
use llmd_epp_core::parsers::UnknownParser;
use llmd_process::{tls, traces};

use crate::builtin_proxy::ApiKeyError;
use crate::datalayer::SourceError;
use crate::discovery::file::DiscoveryError;
use crate::kubernetes::client::ClientError;
use crate::reload::ConfigFileError;

/// Why the picker does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// `--config-file` cannot be read.
    #[error(transparent)]
    ConfigFile(#[from] ConfigFileError),
    /// The data layer's threads cannot be started.
    #[error("the threads for scraping cannot be started: {0}")]
    ScrapeThreads(io::Error),
    /// The threads of ext-proc cannot be started.
    #[error("the threads for ext-proc cannot be started: {0}")]
    StreamThreads(io::Error),
    /// The configuration is wrong.
    #[error("configuration: {0}")]
    Config(#[from] ConfigError),
    /// A parser that this build does not have.
    #[error("configuration: {0}")]
    Parser(#[from] UnknownParser),
    /// Nothing says where the endpoints are.
    #[error(
        "no endpoints are configured: give --pool-name, or --endpoint-selector with --endpoint-target-ports, or --endpoints, or add a plugin of type 'file-discovery' and name it in dataLayer.discovery.pluginRef"
    )]
    NoDiscovery,
    /// A file of endpoints with something that only a cluster has.
    #[error(
        "--{0} needs Kubernetes, but dataLayer.discovery.pluginRef names a file of endpoints: leave one out"
    )]
    FileDiscovery(&'static str),
    /// Two places say which endpoints there are.
    #[error(
        "--endpoints and dataLayer.discovery.pluginRef both say which endpoints there are: leave one out"
    )]
    TwoLists,
    /// Another replica may lead now.
    #[error("the leader's lease was lost: another replica takes over and this process ends")]
    LeaseLost,
    /// No way to the API server.
    #[error(transparent)]
    Kubernetes(#[from] ClientError),
    /// Discovery failed at start.
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    /// The TLS files of a metrics source are wrong.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The certificate of the `ext_proc` port is wrong.
    #[error("--secure-serving: {0}")]
    Tls(#[from] tls::TlsError),
    /// The certificate of the metrics port, or the CA of its clients, is wrong.
    #[error("--metrics-cert-dir, --metrics-client-ca-file: {0}")]
    MetricsTls(#[source] tls::TlsError),
    /// The certificate of the built-in proxy, or the CA of its clients, is wrong.
    #[error("--proxy-cert-dir, --proxy-client-ca-file: {0}")]
    ProxyTls(#[source] tls::TlsError),
    /// The CA of engines is wrong.
    #[error("--proxy-engine-ca-file: {0}")]
    Engines(#[source] crate::datalayer::TlsError),
    /// The access log cannot be opened.
    #[error("--proxy-access-log-file: {0}")]
    AccessLog(#[source] std::io::Error),
    /// The tracing environment is wrong.
    #[error(transparent)]
    Traces(#[from] traces::SettingsError),
    /// The span exporter cannot be built.
    #[error("span export: {0}")]
    Exporter(String),
    /// The API keys of the built-in proxy are wrong.
    #[error(transparent)]
    ApiKeys(#[from] ApiKeyError),
    /// A port is taken or not allowed.
    #[error("--{flag}={port} cannot be opened: {source}; free the port or choose another one")]
    Port {
        /// The flag.
        flag: &'static str,
        /// The port.
        port: u16,
        /// What went wrong.
        source: io::Error,
    },
    /// Two metrics of one name: a defect.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The operating system refused something.
    #[error(transparent)]
    Io(#[from] io::Error),
}
