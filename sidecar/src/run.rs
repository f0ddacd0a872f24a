//! The role: listeners, the metrics page, signals.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use llmd_process::pflag::FlagError;
use llmd_process::tls::{ServerTls, TlsError};
use llmd_process::tls_client::ClientTlsError;
use llmd_process::{admin, logging, signals, tls_client, traces};
use llmd_proxy::{Caller, Limits, ServeError, Server, TargetProtocol, TargetTls};
use prometheus::Registry;
use rustls::pki_types::ServerName;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::allowed::{self, AllowError};
use crate::chunked::{self, Chunker};
use crate::flags::engines::Tls;
use crate::flags::{OptionError, SidecarOptions, flag_set};
use crate::metrics::Metrics;
use crate::next_turn;
use crate::route::{Callers, Rank, Shared};

/// Name of the service in traces, upstream's.
const SERVICE: &str = "llm-d-disagg-sidecar";
/// Exit status for a command line that cannot be obeyed, pflag's.
const USAGE: u8 = 2;
/// How often idle connections to prefill engines are looked through.
const SWEEP: Duration = Duration::from_secs(10);
/// How long an idle connection to an engine may be reused: upstream's 90 s.
const IDLE_CONNECTION: Duration = Duration::from_secs(90);

/// Why the sidecar ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A port is taken.
    #[error("--{flag}={port}: {source}")]
    Port {
        /// The flag.
        flag: &'static str,
        /// The port.
        port: u16,
        /// What the system says.
        source: io::Error,
    },
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The environment of the tracing SDK.
    #[error(transparent)]
    Traces(#[from] traces::SettingsError),
    /// Spans cannot be exported.
    #[error("--tracing: the exporter cannot be built: {0}")]
    Exporter(String),
    /// TLS towards engines.
    #[error("--enable-tls: {0}")]
    EngineTls(#[from] ClientTlsError),
    /// SSRF protection.
    #[error(transparent)]
    Allowed(#[from] AllowError),
    /// Two metrics of one name.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
    /// A listener ended.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// Runtime or signals.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The role `sidecar`: `arguments` without the program's name. Returns when the process shall end.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let options = match SidecarOptions::parse(arguments, |name| std::env::var(name).ok()) {
        Ok(options) => options,
        Err(OptionError::Flag(FlagError::Help)) => {
            // Nobody reads a help text whose pipe is closed.
            let _ = write!(io::stdout(), "{}", flag_set().usage("sidecar"));
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            let usage = match &error {
                OptionError::Flag(_) => flag_set().usage("sidecar"),
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

fn start(options: &SidecarOptions) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let export = if options.tracing {
            let settings = traces::Settings::read(SERVICE, |name| std::env::var(name).ok())?;
            traces::layer(&settings).map_err(|error| RunError::Exporter(error.to_string()))?
        } else {
            None
        };
        let (export, layer) = export.unzip();
        logging::init(options.logging, layer);
        let outcome = serve(options, signals::shutdown_token()?).await;
        // What is queued goes out.
        drop(export);
        outcome
    })
}

/// Serves until `shutdown`, then finishes the requests in flight within the drain deadline.
///
/// # Errors
/// A port is taken, a certificate is wrong, or requests had to be cut off.
pub async fn serve(options: &SidecarOptions, shutdown: CancellationToken) -> Result<(), RunError> {
    let mut ranks = Vec::new();
    for rank in 0..options.ranks {
        let engine = (Ipv4Addr::LOCALHOST, options.engine_port + rank).into();
        ranks.push((bind("port", options.port + rank).await?, engine));
    }
    let registry = Registry::new();
    if let Some(port) = options.metrics_port {
        let listener = bind("metrics-port", port).await?;
        let pages = admin::pages(registry.clone(), axum::Router::new());
        let stop = shutdown.clone();
        let tls = match &options.metrics_tls {
            Some(tls) => Some(followed(tls, &shutdown)?),
            None => None,
        };
        tokio::spawn(async move {
            let served = match tls {
                Some(tls) => admin::serve_pages_over_tls(listener, tls, pages, stop).await,
                None => admin::serve_pages(listener, pages, stop).await,
            };
            if let Err(error) = served {
                tracing::warn!(%error, "the metrics server ended");
            }
        });
    }
    serve_ranks(options, ranks, &registry, shutdown).await
}

/// Serves listeners that are bound already, each with the engine behind it, as [`serve`] does.
///
/// # Errors
/// A certificate is wrong, or requests had to be cut off.
pub async fn serve_ranks(
    options: &SidecarOptions,
    ranks: Vec<(TcpListener, SocketAddr)>,
    registry: &Registry,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    for note in &options.notes {
        tracing::info!("{note}");
    }
    let limits = Limits {
        drain: options.drain,
        idle_connections_per_target: options.idle_connections,
        idle_connection: IDLE_CONNECTION,
        ..Limits::default()
    };
    let engine_tls = options.engine_tls;
    let to_decoder = protocol(engine_tls.decoder, Some("localhost"))?;
    let followed_pool = match options.pool.clone() {
        Some(pool) => Some(allowed::follow(pool).await?),
        None => None,
    };
    let shared = Arc::new(Shared {
        allowed: followed_pool.as_ref().map(|followed| followed.allowed.clone()),
        callers: Callers {
            prefill: Caller::new(limits.clone(), protocol(engine_tls.prefiller, None)?),
            encode: Caller::new(limits.clone(), protocol(engine_tls.encoder, None)?),
            decode: Caller::new(limits.clone(), to_decoder.clone()),
        },
        connector: options.connector.build(registry)?,
        peers: options.peers.clone(),
        metrics: Metrics::register(registry)?,
        on_failure: options.on_failure,
        retries: options.retries,
        samples: options.samples,
        traces: options.tracing,
        embeddings: options.embeddings,
        next_turns: options.prepares_turns.then(next_turn::slots),
        pod: options.pod,
        first_port: options.port,
    });
    let engines: Arc<[SocketAddr]> = ranks.iter().map(|(_, engine)| *engine).collect();
    let tls = match &options.tls {
        Some(tls) => Some(followed(tls, &shutdown)?),
        None => None,
    };
    let mut chunkers = Vec::new();
    if let Some(tokens) = options.chunk_tokens {
        for engine in &*engines {
            let chunker = Chunker {
                caller: Caller::new(limits.clone(), to_decoder.clone()),
                engine: *engine,
                tokens,
            };
            chunkers.push(chunked::serve(chunker).await?);
        }
    }
    let cuts = options.chunk_tokens.map(|tokens| {
        let addresses = chunkers.iter().map(|chunker| chunker.address).collect();
        (addresses, tokens)
    });
    let mut servers = JoinSet::new();
    for (index, (listener, _)) in (0..).zip(ranks) {
        let rank = Rank {
            shared: Arc::clone(&shared),
            engines: Arc::clone(&engines),
            chunkers: cuts.clone(),
            index,
        };
        let mut server = Server::new(rank, limits.clone())
            .reaching_targets_by(to_decoder.clone())
            .trusting_forwarded_headers(true)
            .closing_connections_on(shutdown.clone());
        if let Some(tls) = &tls {
            server = server.with_tls(Arc::clone(tls));
        }
        servers.spawn(server.serve(listener, shutdown.clone()));
    }
    let mut sweep = tokio::time::interval(SWEEP);
    let mut outcome = Ok(());
    loop {
        tokio::select! {
            _ = sweep.tick() => {
                shared.callers.prefill.sweep();
                shared.callers.encode.sweep();
                shared.callers.decode.sweep();
            }
            ended = servers.join_next() => match ended {
                Some(Ok(Err(error))) => outcome = Err(error.into()),
                // A panicked server has logged itself.
                Some(_) => {}
                None => return outcome,
            },
        }
    }
}

/// A certificate that is read anew when its files change.
fn followed(tls: &ServerTls, shutdown: &CancellationToken) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let reloadable = tls.build()?;
    reloadable.watch(shutdown.clone())?;
    Ok(reloadable.config)
}

/// How a kind of engine is spoken with; `name` is in the certificate instead of its address.
fn protocol(tls: Tls, name: Option<&'static str>) -> Result<TargetProtocol, ClientTlsError> {
    let mut protocol = TargetProtocol::default();
    if tls.is_on {
        let config = tls_client::client_config(tls.takes_any)?;
        let server_name = name.and_then(|name| ServerName::try_from(name).ok());
        protocol.tls = Some(TargetTls {
            config: Arc::new(config),
            server_name,
        });
    }
    Ok(protocol)
}

async fn bind(flag: &'static str, port: u16) -> Result<TcpListener, RunError> {
    // One dual-stack socket, as Go's ":port"; hosts without IPv6 get IPv4.
    let listener = match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await
        }
        bound => bound,
    };
    let listener = listener.map_err(|source| RunError::Port { flag, port, source })?;
    tracing::info!(address = %listener.local_addr()?, "listening for --{flag}");
    Ok(listener)
}
