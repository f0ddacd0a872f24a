//! Runs the Endpoint Picker: configuration, listeners, discovery, servers, drain.

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use llmd_epp_api::{Clock, SlotTable};
use llmd_epp_core::config::{Assembly, Decoded};
use llmd_epp_core::exchange::Options;
use llmd_epp_core::parsers::{Parsers, UnknownParser};
use llmd_epp_core::request_metrics::RequestMetrics;
use llmd_epp_core::{BuildEnv, ConfigError, EndpointPickerConfig, Epp, assemble};
use llmd_openai::Limits;
use llmd_process::pflag::FlagError;
use llmd_process::{admin, logging, signals, tls, traces};
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::body_budget::BodyBudget;
use crate::builtin_proxy::{self, ApiKeyError, ApiKeys, Continuations};
use crate::datalayer::{self, DataLayer, SourceError};
use crate::debug;
use crate::discovery::file::{self, DiscoveryError};
use crate::extproc::{ExtProc, StreamMetrics};
use crate::flags::{ConfigSource, EppOptions, OptionError, flag_set};
use crate::grpc::{self, Services};
use crate::health::Health;
use crate::pool::{self, PoolMetrics};

/// Exit status for a command line that cannot be obeyed, pflag's.
const USAGE: u8 = 2;
/// After `--drain-timeout` open streams may take this many times as long again. With upstream's 30 s
/// that is 120 s, below the chart's grace period of 130 s.
const STREAM_PATIENCE: u32 = 3;
/// Application protocol of pools outside Kubernetes.
const POOL_PROTOCOL: &str = "http";

/// Why the picker does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// `--config-file` cannot be read.
    #[error("--config-file '{path}' cannot be read: {source}")]
    ConfigFile {
        /// The file.
        path: String,
        /// What went wrong.
        source: io::Error,
    },
    /// The configuration is wrong.
    #[error("configuration: {0}")]
    Config(#[from] ConfigError),
    /// A parser that this build does not have.
    #[error("configuration: {0}")]
    Parser(#[from] UnknownParser),
    /// No endpoints outside Kubernetes.
    #[error(
        "no endpoint discovery is configured and this build has no Kubernetes discovery: add a plugin of type 'file-discovery' and name it in dataLayer.discovery.pluginRef"
    )]
    NoDiscovery,
    /// Discovery failed at start.
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    /// The TLS files of a metrics source are wrong.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The certificate of the `ext_proc` port is wrong.
    #[error("--secure-serving: {0}")]
    Tls(#[from] tls::TlsError),
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

/// The role `epp`: `arguments` without the program's name. Returns when the process shall end.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let options = match EppOptions::parse(arguments) {
        Ok(options) => options,
        Err(OptionError::Flag(FlagError::Help)) => {
            // Nobody reads a help text whose pipe is closed.
            let _ = write!(io::stdout(), "{}", flag_set().usage("epp"));
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            let usage = match &error {
                OptionError::Flag(_) => flag_set().usage("epp"),
                _ => String::new(),
            };
            let _ = writeln!(io::stderr(), "error: {error}\n{usage}");
            return ExitCode::from(USAGE);
        }
    };
    match start(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(options: &EppOptions) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let export = if options.tracing {
            let settings = traces::Settings::read("llm-d-epp", |name| std::env::var(name).ok())?;
            traces::layer(&settings).map_err(|error| RunError::Exporter(error.to_string()))?
        } else {
            None
        };
        let (export, layer) = export.unzip();
        logging::init(options.logging, layer);
        let shutdown = signals::shutdown_token()?;
        let outcome = serve(options, shutdown, |_| ()).await;
        drop(export);
        outcome
    })
}

/// Where a running picker listens.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// `ext_proc`.
    pub grpc: SocketAddr,
    /// gRPC health.
    pub health: SocketAddr,
    /// Metrics and debug pages.
    pub metrics: SocketAddr,
    /// The built-in proxy.
    pub proxy: Option<SocketAddr>,
}

/// Serves until `shutdown`, then drains. `on_serving` is called once, when the pool is known and every
/// port is served; a port given as 0 is known then.
pub async fn serve(
    options: &EppOptions,
    shutdown: CancellationToken,
    on_serving: impl FnOnce(Addresses),
) -> Result<(), RunError> {
    for note in &options.notes {
        tracing::info!("{note}");
    }
    let registry = Registry::new();
    let assembly = load(options, &registry)?;
    let Assembly {
        scheduler,
        data_layer,
        parsers,
        ..
    } = assembly;
    let scheduler = Arc::new(scheduler);
    let parsers = Parsers::from_types(parsers.iter().map(|plan| plan.name.plugin_type))?;
    let health = Health::new(parsers.support(POOL_PROTOCOL));
    let discovery = data_layer.discovery.clone().ok_or(RunError::NoDiscovery)?;
    let listeners = Listeners::bind(options).await?;
    let stop = CancellationToken::new();
    let tls = server_tls(options, &stop)?;

    let layer = {
        let scheduler = Arc::clone(&scheduler);
        DataLayer::start(
            datalayer::Options {
                sources: datalayer::sources(&data_layer)?,
                refresh_interval: options.refresh_metrics,
                slots: Arc::new(SlotTable::default()),
                on_endpoints: Box::new(move |snapshot| scheduler.endpoints_changed(snapshot)),
                deprecated_metrics: options.deprecated_metrics,
            },
            &registry,
        )?
    };
    let _discovery = file::start(&discovery, &layer).await?;
    health.synced();

    let gauges = PoolMetrics::register(&registry, &options.pool_name, options.deprecated_metrics)?;
    let gauges = pool::refresh(gauges, layer.clone(), options.refresh_gauges, options.staleness);
    let gauges = tokio::spawn(gauges);
    let epp = Arc::new(Epp::new(
        scheduler,
        parsers,
        RequestMetrics::register(
            &registry,
            options.deprecated_metrics,
            option_env!("LLMD_COMMIT").unwrap_or("unknown"),
            concat!("v", env!("CARGO_PKG_VERSION")),
        )?,
        Options {
            limits: Limits {
                max_bytes: options.max_request_body,
                ..Limits::default()
            },
            ignore_subset: options.ignore_subset,
        },
    ));
    let servers = Servers {
        options,
        registry,
        health: health.clone(),
        layer,
        epp,
        tls,
        stop: stop.clone(),
    };
    let addresses = listeners.addresses()?;
    let running = servers.start(listeners)?;
    on_serving(addresses);

    shutdown.cancelled().await;
    health.draining();
    tracing::info!(seconds = options.drain_timeout.as_secs(), "draining");
    tokio::time::sleep(options.drain_timeout).await;
    stop.cancel();
    for server in running {
        // A panicked server has logged itself; the others still drain.
        let _ = server.await;
    }
    gauges.abort();
    Ok(())
}

/// Reads, decodes and builds the configuration; warnings are logged.
fn load(options: &EppOptions, registry: &Registry) -> Result<Assembly, RunError> {
    let Decoded { config, warnings } = match &options.config {
        ConfigSource::Default => Decoded {
            config: EndpointPickerConfig::upstream_default(),
            warnings: Vec::new(),
        },
        ConfigSource::Text(text) => EndpointPickerConfig::decode(text)?,
        ConfigSource::File(path) => {
            let text = std::fs::read_to_string(path).map_err(|source| RunError::ConfigFile {
                path: path.display().to_string(),
                source,
            })?;
            EndpointPickerConfig::decode(&text)?
        }
    };
    let env = BuildEnv {
        registry: registry.clone(),
        deprecated_metrics: options.deprecated_metrics,
        seed: fastrand::u64(..),
        allow_experimental: options.allow_experimental,
        retain_scores: options.emit_endpoint_scores,
        clock: Some(Arc::new(Monotonic)),
    };
    let assembly = assemble(&config, env)?;
    for warning in warnings.iter().chain(&assembly.warnings) {
        tracing::warn!("configuration: {warning}");
    }
    Ok(assembly)
}

fn server_tls(
    options: &EppOptions,
    stop: &CancellationToken,
) -> Result<Option<Arc<rustls::ServerConfig>>, RunError> {
    let Some(tls) = &options.tls else { return Ok(None) };
    let reloadable = tls.build()?;
    if options.reload_certificates {
        reloadable.watch(stop.clone())?;
    }
    Ok(Some(reloadable.config))
}

/// Bound, but not served yet: a taken port is reported before anything else happens.
struct Listeners {
    grpc: TcpListener,
    health: TcpListener,
    metrics: TcpListener,
    proxy: Option<TcpListener>,
}

impl Listeners {
    async fn bind(options: &EppOptions) -> Result<Self, RunError> {
        let all = options.bind_address;
        let proxy = match &options.proxy {
            Some(proxy) => Some(open("proxy-port", Some(proxy.address), proxy.port).await?),
            None => None,
        };
        Ok(Self {
            grpc: open("grpc-port", all, options.grpc_port).await?,
            health: open("grpc-health-port", all, options.health_port).await?,
            metrics: open("metrics-port", all, options.metrics_port).await?,
            proxy,
        })
    }

    fn addresses(&self) -> io::Result<Addresses> {
        Ok(Addresses {
            grpc: self.grpc.local_addr()?,
            health: self.health.local_addr()?,
            metrics: self.metrics.local_addr()?,
            proxy: self.proxy.as_ref().map(TcpListener::local_addr).transpose()?,
        })
    }
}

async fn open(flag: &'static str, address: Option<IpAddr>, port: u16) -> Result<TcpListener, RunError> {
    let listener = match address {
        Some(address) => TcpListener::bind(SocketAddr::new(address, port)).await,
        None => grpc::bind(port).await,
    };
    let listener = listener.map_err(|source| RunError::Port { flag, port, source })?;
    tracing::info!(address = %listener.local_addr()?, "listening for --{flag}");
    Ok(listener)
}

/// Everything the servers share.
struct Servers<'a> {
    options: &'a EppOptions,
    registry: Registry,
    health: Health,
    layer: DataLayer,
    epp: Arc<Epp>,
    tls: Option<Arc<rustls::ServerConfig>>,
    stop: CancellationToken,
}

impl Servers<'_> {
    fn start(self, listeners: Listeners) -> Result<Vec<tokio::task::JoinHandle<()>>, RunError> {
        let Self {
            options,
            registry,
            health,
            layer,
            epp,
            tls,
            stop,
        } = self;
        let Listeners {
            grpc: grpc_listener,
            health: health_listener,
            metrics,
            proxy,
        } = listeners;
        let patience = options.drain_timeout * STREAM_PATIENCE;
        let pool = layer.clone();
        let ext_proc = ExtProc {
            epp: Arc::clone(&epp),
            snapshots: Arc::new(move || pool.snapshot()),
            emit_endpoint_scores: options.emit_endpoint_scores,
            stream_metrics: options
                .stream_metrics
                .then(|| StreamMetrics::register(&registry))
                .transpose()?,
            bodies: Arc::new(BodyBudget::new(options.max_buffered_bodies)),
            tracing: options.tracing,
        };
        let mut running = Vec::new();
        let services = Services {
            ext_proc: Some(Arc::new(ext_proc)),
            health: options.health_on_grpc_port.then(|| health.clone()),
            limits: options.messages,
        };
        running.push(tokio::spawn(grpc::serve(
            grpc_listener,
            tls,
            services,
            stop.clone(),
            patience,
        )));
        let services = Services {
            ext_proc: None,
            health: Some(health.clone()),
            limits: options.messages,
        };
        // Probes are short: nothing of theirs is worth waiting for.
        let health_server = grpc::serve(health_listener, None, services, stop.clone(), Duration::ZERO);
        running.push(tokio::spawn(health_server));
        if let (Some(listener), Some(proxy)) = (proxy, &options.proxy) {
            let ready = health.clone();
            let proxy_options = builtin_proxy::Options {
                api_keys: proxy.api_key_file.as_deref().map(ApiKeys::read).transpose()?,
                continuations: proxy
                    .stream_continuation
                    .then(|| Continuations::register(&registry))
                    .transpose()?,
                limits: llmd_proxy::Limits {
                    request_body_bytes: options.max_request_body,
                    drain: patience,
                    ..llmd_proxy::Limits::default()
                },
                is_ready: Arc::new(move || ready.is_ready()),
            };
            let server = builtin_proxy::serve(listener, epp, layer.clone(), proxy_options, stop.clone());
            running.push(tokio::spawn(async move {
                if let Err(error) = server.await {
                    tracing::warn!(%error, "the built-in proxy ended");
                }
            }));
        }
        let server = admin::serve(metrics, registry, debug::router(layer), stop);
        running.push(tokio::spawn(async move {
            if let Err(error) = server.await {
                tracing::warn!(%error, "the metrics server ended");
            }
        }));
        Ok(running)
    }
}

/// The machine's monotonic clock, for the scheduler's duration metrics.
struct Monotonic;

impl Clock for Monotonic {
    fn now(&self) -> Instant {
        Instant::now()
    }
}
