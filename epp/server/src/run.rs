//! Runs the Endpoint Picker: configuration, listeners, discovery, servers, drain.

mod drain;
mod error;
mod port;
mod servers;
mod source;

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use llmd_epp_api::{Clock, MetricsScope, SlotTable, Timing};
use llmd_epp_core::config::{Assembly, Decoded};
use llmd_epp_core::exchange::Options;
use llmd_epp_core::parsers::Parsers;
use llmd_epp_core::request_metrics::RequestMetrics;
use llmd_epp_core::{BuildEnv, EndpointPickerConfig, Epp, assemble};
use llmd_openai::Limits;
use llmd_process::pflag::FlagError;
use llmd_process::tls::{ServerTls, TlsError};
use llmd_process::{logging, signals, traces};
use prometheus::Registry;
use tokio_util::sync::CancellationToken;

use crate::builtin_proxy::engines::H2C;
use crate::datalayer::{self, DataLayer, ScrapeThreads};
use crate::discovery::kubernetes;
use crate::eds::Changes;
use crate::flags::{ConfigSource, EppOptions, OptionError, flag_set};
use crate::grpc::StreamThreads;
use crate::health::Health;
use crate::leader::PoolLeader;
use crate::metrics_auth::MetricsAuth;
use crate::pool::{self, PoolMetrics};
use crate::reload::{self, CurrentScheduler, PoolProtocol, ReloadMetrics, Reloader, Running, Targets};
use crate::render::RenderClient;
use crate::verbs;
use crate::waiting::{WaitingMetrics, WaitingRoom};
pub use error::RunError;
use servers::{Listeners, Probes, Servers};
use source::Source;

/// Exit status for a command line that cannot be obeyed, pflag's.
const USAGE: u8 = 2;
/// Application protocol of pools outside Kubernetes.
const POOL_PROTOCOL: &str = "http";
/// Application protocols that an `InferencePool` may have.
const POOL_PROTOCOLS: [&str; 2] = [POOL_PROTOCOL, H2C];

/// The role `epp`: `arguments` without the program's name. Returns when the process shall end.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if let Some(ended) = verbs::run(&arguments) {
        return ended;
    }
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
        let threads = StreamThreads::start().map_err(RunError::StreamThreads)?;
        let outcome = serve(options, Some(threads), shutdown, |_| ()).await;
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

/// Serves until `shutdown`, then drains. `on_serving` is called once, when every port is served; a port
/// given as 0 is known then. A file of endpoints has been read by then; a pool in a cluster may still be
/// unknown, see [`Health::is_ready`].
///
/// `threads` serve the connections of `ext_proc`; without, the caller's runtime does.
pub async fn serve(
    options: &EppOptions,
    threads: Option<StreamThreads>,
    shutdown: CancellationToken,
    on_serving: impl FnOnce(Addresses),
) -> Result<(), RunError> {
    for note in &options.notes {
        tracing::info!("{note}");
    }
    let registry = Registry::new();
    let env = build_env(options, &registry);
    let Loaded {
        text,
        config,
        assembly,
    } = load(options, env.clone()).await?;
    let Assembly {
        scheduler,
        data_layer,
        parsers,
        heritage,
        ..
    } = assembly;
    let scheduler = Arc::new(scheduler);
    let parsers = Parsers::from_types(parsers.iter().map(|plan| plan.name.plugin_type))?;
    let health = Health::new(parsers.support(POOL_PROTOCOL));
    let source = Source::of(options, data_layer.discovery.as_ref()).await?;
    let listeners = Listeners::bind(options)?;
    let (closing, stop) = (CancellationToken::new(), CancellationToken::new());
    let tls = options
        .tls
        .as_ref()
        .map(|tls| server_tls(tls, options.reload_certificates, &stop))
        .transpose()?;
    let metrics_tls = options
        .metrics_tls
        .as_ref()
        .map(|tls| server_tls(tls, true, &stop))
        .transpose()
        .map_err(RunError::MetricsTls)?;
    let proxy_tls = options
        .proxy
        .as_ref()
        .and_then(|proxy| proxy.tls.as_ref())
        .map(|tls| server_tls(tls, true, &stop))
        .transpose()
        .map_err(RunError::ProxyTls)?;

    let current = CurrentScheduler::new(Arc::clone(&scheduler));
    let scrape_threads = ScrapeThreads::start().map_err(RunError::ScrapeThreads)?;
    let waiting = waiting_room(options, &registry, &stop)?;
    let endpoint_changes = Arc::new(Changes::default());
    let layer = {
        let scheduler = current.clone();
        let (waiting, changes) = (waiting.clone(), Arc::clone(&endpoint_changes));
        DataLayer::start(
            datalayer::Options {
                sources: datalayer::sources(&data_layer)?,
                refresh_interval: options.refresh_metrics,
                adaptive: options.adaptive_scraping && options.timing == Timing::Live,
                fresh_for: (options.timing == Timing::Live).then_some(options.staleness),
                slots: Arc::new(SlotTable::default()),
                on_endpoints: Box::new(move |snapshot| {
                    scheduler.endpoints_changed(snapshot);
                    let waiting = waiting.clone();
                    let has_endpoints = !snapshot.is_empty();
                    if let (Some(waiting), false) = (&waiting, has_endpoints) {
                        waiting.endpoints_changed(false);
                    }
                    changes.announce(move || {
                        if let (Some(waiting), true) = (waiting, has_endpoints) {
                            waiting.endpoints_changed(true);
                        }
                    });
                }),
                deprecated_metrics: options.deprecated_metrics,
                runtime: scrape_threads.handle(),
            },
            &registry,
        )?
    };
    let gauges = PoolMetrics::register(&registry, &options.pool.name, options.deprecated_metrics)?;
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
    epp.set_render(Arc::new(RenderClient::default()));
    let protocol = PoolProtocol::new(POOL_PROTOCOL);
    let reloader = Reloader::new(
        Targets {
            epp: Arc::clone(&epp),
            scheduler: current,
            layer: layer.clone(),
            health: health.clone(),
            protocol: protocol.clone(),
        },
        Running {
            config,
            data_layer,
            heritage,
        },
        env,
        ReloadMetrics::register(&registry)?,
    );
    let pool_protocol = protocol.clone();
    let (rules, speaker) = (Arc::clone(&epp), Arc::clone(&epp));
    let sinks = kubernetes::Sinks {
        layer: layer.clone(),
        health: health.clone(),
        supports: Box::new(move |asked| {
            protocol.set(asked);
            POOL_PROTOCOLS.contains(&asked) && speaker.supports(asked)
        }),
        set_traffic: Box::new(move |traffic| rules.set_traffic_rules(traffic)),
    };
    let client = source.client().cloned();
    let metrics_auth = client
        .clone()
        .filter(|_| options.pool.metrics_auth)
        .map(MetricsAuth::new);
    let leader = client
        .filter(|_| options.pool.leader_election)
        .map(|client| PoolLeader::start(client, &options.pool, health.clone()));
    let discovery = source.start(options, sinks, &registry).await?;
    let picker = Arc::clone(&epp);
    let addresses = listeners.addresses()?;
    let Listeners {
        health: health_port,
        metrics: metrics_port,
        traffic,
    } = listeners;
    let probes = Probes {
        health: health.clone(),
        limits: options.messages,
        registry: registry.clone(),
        layer: layer.clone(),
        epp: Arc::clone(&epp),
        metrics_auth,
        metrics_tls,
        stop: stop.clone(),
    };
    let mut running = probes.start(health_port, metrics_port);
    let servers = Servers {
        options,
        registry,
        health: health.clone(),
        layer,
        epp,
        endpoint_changes,
        waiting,
        tls,
        threads,
        proxy_tls,
        pool_protocol,
        closing: closing.clone(),
        stop: stop.clone(),
    };
    let following = match &options.config {
        ConfigSource::File(path) if options.reload_config => {
            Some(reload::follow(path.clone(), text, reloader))
        }
        _ => None,
    };
    let mut traffic = Some((servers, traffic));
    // A file or a fixed list is known already; an API server has yet to answer.
    if health.is_synced()
        && let Some((servers, ports)) = traffic.take()
    {
        running.extend(servers.start(ports)?);
    }
    on_serving(addresses);

    let outcome = {
        let ended = async {
            tokio::select! {
                () = shutdown.cancelled() => Ok(()),
                () = lost(leader.as_ref()) => Err(RunError::LeaseLost),
            }
        };
        tokio::pin!(ended);
        let mut early = None;
        if let Some((servers, ports)) = traffic {
            // Before the pool is known, a refused connection lets a proxy fail open; an answer could only be 503.
            tokio::select! {
                () = health.until_synced() => running.extend(servers.start(ports)?),
                outcome = &mut ended => early = Some(outcome),
            }
        }
        match early {
            Some(outcome) => outcome,
            None => ended.await,
        }
    };
    health.draining();
    tracing::info!(seconds = options.drain_timeout.as_secs(), "draining");
    let released = async {
        if let Some(leader) = leader {
            // Another replica takes over while this one finishes what it has.
            leader.release().await;
        }
    };
    let told = async {
        if let Some(port) = options.envoy_admin_port {
            drain::close_connections_of_envoy(port).await;
        }
    };
    closing.cancel();
    tokio::join!(
        released,
        told,
        drain::until_quiet(|| picker.activity(), options.drain_timeout)
    );
    stop.cancel();
    for server in running {
        // A panicked server has logged itself; the others still drain.
        let _ = server.await;
    }
    drop((discovery, following));
    gauges.abort();
    outcome
}

/// Where requests wait for an endpoint, if they do.
fn waiting_room(
    options: &EppOptions,
    registry: &Registry,
    stop: &CancellationToken,
) -> Result<Option<Arc<WaitingRoom>>, prometheus::Error> {
    let Some(waiting) = options.waiting else {
        return Ok(None);
    };
    let scope = MetricsScope::new(registry.clone(), options.deprecated_metrics);
    let metrics = WaitingMetrics::register(&scope, &options.pool.name)?;
    Ok(Some(WaitingRoom::new(waiting, metrics, stop.clone())))
}

async fn lost(leader: Option<&PoolLeader>) {
    match leader {
        Some(leader) => leader.led().await,
        None => std::future::pending().await,
    }
}

/// The configuration at the start.
struct Loaded {
    /// As read from the file; empty for one that is not followed.
    text: String,
    config: EndpointPickerConfig,
    assembly: Assembly,
}

/// Reads, decodes and builds the configuration; warnings are logged.
async fn load(options: &EppOptions, env: BuildEnv) -> Result<Loaded, RunError> {
    let text = match &options.config {
        ConfigSource::File(path) => reload::read(path).await?,
        ConfigSource::Text(text) => text.clone(),
        ConfigSource::Default => String::new(),
    };
    let Decoded { config, warnings } = match &options.config {
        ConfigSource::Default => Decoded {
            config: EndpointPickerConfig::upstream_default(),
            warnings: Vec::new(),
        },
        ConfigSource::Text(_) | ConfigSource::File(_) => EndpointPickerConfig::decode(&text)?,
    };
    let assembly = assemble(&config, env)?;
    for warning in warnings.iter().chain(&assembly.warnings) {
        tracing::warn!("configuration: {warning}");
    }
    Ok(Loaded {
        text,
        config,
        assembly,
    })
}

fn build_env(options: &EppOptions, registry: &Registry) -> BuildEnv {
    BuildEnv {
        registry: registry.clone(),
        deprecated_metrics: options.deprecated_metrics,
        seed: fastrand::u64(..),
        allow_experimental: options.allow_experimental,
        retain_scores: options.emit_endpoint_scores,
        timing: options.timing,
        clock: Some(Arc::new(Monotonic)),
        predecessor: None,
    }
}

fn server_tls(
    tls: &ServerTls,
    follow: bool,
    stop: &CancellationToken,
) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let reloadable = tls.build()?;
    if follow {
        reloadable.watch(stop.clone())?;
    }
    Ok(reloadable.config)
}

/// The machine's monotonic clock, for the scheduler's duration metrics.
struct Monotonic;

impl Clock for Monotonic {
    fn now(&self) -> Instant {
        Instant::now()
    }
}
