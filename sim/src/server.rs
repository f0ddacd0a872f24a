//! The HTTP server: listen, accept, drain.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::args::{ConfigError, Ports as PortsOfRanks, SimArgs, SimConfig};
use crate::driver::{Driver, EngineHandle};
use crate::engine::{Engine, Timing};
use crate::front::Front;
use crate::group::Group;
use crate::metrics::Metrics;
use crate::service::{Media, Ports, Service};
use crate::transfer::encodings::{EncoderCache, EncodingChannel};
use crate::transfer::give::Identity;
use crate::transfer::{KvTransferConfig, SideChannel};

/// Time a client has to send its request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Pause between two looks at what an engine that ends still holds.
const LOOK: Duration = Duration::from_millis(10);

/// How the simulator could not start or run.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// Wrong flags.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}; choose another --host or --port")]
    Listen {
        /// Host and port.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// The group cannot be listened for.
    #[error(
        "cannot listen on port {port} for the group: {source}; choose another --host or --data-parallel-rpc-port"
    )]
    Group {
        /// Port.
        port: u16,
        /// Why.
        source: std::io::Error,
    },
    /// The side channel of encodings cannot be listened on.
    #[error(
        "cannot listen on {address} for encodings: {source}; choose another --ec-side-channel-host or --ec-side-channel-port"
    )]
    Encodings {
        /// Host and port.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// A listener does not know its own address.
    #[error("a listener has no address: {0}")]
    Address(std::io::Error),
    /// The side channel cannot be listened on.
    #[error(
        "cannot listen on {address} for KV transfers: {source}; choose another --nixl-side-channel-host or --nixl-side-channel-port"
    )]
    SideChannel {
        /// Host and port.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// The metrics cannot be set up.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Runs a simulator until `shutdown` resolves, then lets streams end for the drain time.
pub async fn run(args: SimArgs, shutdown: impl Future<Output = ()>) -> Result<(), SimError> {
    let mut simulator = Simulator::start(args.config()?).await?;
    tracing::info!(address = %simulator.address(), "simulated engine listens");
    shutdown.await;
    simulator.stop().await;
    Ok(())
}

/// A running simulator. Dropping it ends it at once.
pub struct Simulator {
    addresses: Vec<SocketAddr>,
    supervisor: Option<SocketAddr>,
    group: Option<SocketAddr>,
    drain: Duration,
    stop: CancellationToken,
    kill: CancellationToken,
    server: Option<JoinHandle<()>>,
}

impl Simulator {
    /// Listens and serves; port 0 takes a free one.
    pub async fn start(config: SimConfig) -> Result<Self, SimError> {
        let ranks = config.ranks.clone();
        let group = Group::bind(&config.host, &ranks).await;
        let group = group.map_err(|source| SimError::Group {
            port: ranks.group.as_ref().map_or(0, |group| group.port),
            source,
        })?;
        let group_address = group.address();
        let (complete, is_complete) = watch::channel(ranks.group.is_none());
        let (stop, kill) = (CancellationToken::new(), CancellationToken::new());
        let name = format!("{:016x}", fastrand::u64(..));
        let listeners = listen_for(&config).await?;
        let mut addresses = Vec::new();
        for listener in &listeners {
            addresses.push(listener.local_addr().map_err(SimError::Address)?);
        }

        let mut services = Vec::with_capacity(ranks.local);
        let (mut drivers, mut engines) = (JoinSet::new(), Vec::with_capacity(ranks.local));
        let page = Registry::new();
        for local in 0..ranks.local {
            let rank = ranks.start + local;
            let registry = match ranks.ports {
                PortsOfRanks::One => page.clone(),
                PortsOfRanks::PerRank => Registry::new(),
            };
            let metrics = Arc::new(Metrics::new(&config, rank, registry)?);
            let seed = config.seed.wrapping_add(rank as u64);
            let timing = Timing::new(config.model, config.overrides, config.jitter, seed);
            let (driver, engine) = Driver::new(Engine::new(config.engine, timing), metrics.clone());
            drivers.spawn(driver.run());
            engines.push(engine.clone());
            let name = if ranks.size > 1 {
                format!("{name}_dp{rank}")
            } else {
                name.clone()
            };
            let channel = side_channel(&config, name.clone(), rank).await?;
            let ports = Ports {
                http: addresses.get(local).unwrap_or(&addresses[0]).port(),
                side_channel: match &channel {
                    Some(channel) => channel.address().map_err(SimError::Address)?.port(),
                    None => 0,
                },
            };
            if let Some(channel) = channel {
                // Blocks are read while the last requests end: it goes with the engine, not with the listener.
                tokio::spawn(channel.serve(engine.clone(), kill.clone()));
            }
            let media = media(&config, rank, &kill).await?;
            let group = is_complete.clone();
            let service = Service::new(config.clone(), engine, metrics, name, ports, media, group);
            services.push(Arc::new(service));
        }

        let mut fronts: Vec<(TcpListener, Front)> = Vec::new();
        let supervisor = match ranks.supervisor {
            Some(port) => Some(listen(&config.host, port).await?),
            None => None,
        };
        let supervisor_address = match &supervisor {
            Some(listener) => Some(listener.local_addr().map_err(SimError::Address)?),
            None => None,
        };
        fronts.extend(supervisor.map(|listener| (listener, Front::Supervisor(services.clone()))));
        let several = services.len() > 1 && ranks.ports == PortsOfRanks::One;
        for (index, listener) in listeners.into_iter().enumerate() {
            let front = if several {
                Front::Several {
                    services: services.clone(),
                    start: ranks.start,
                    next: AtomicUsize::new(0),
                }
            } else {
                Front::One(services[index].clone())
            };
            fronts.push((listener, front));
        }
        drop(services);

        let mut listening = JoinSet::new();
        for (listener, front) in fronts {
            listening.spawn(serve(listener, Arc::new(front), stop.clone(), kill.clone()));
        }
        let meeting = tokio::spawn(group.meet(ranks, complete));
        let ending = kill.clone();
        let server = tokio::spawn(async move {
            while listening.join_next().await.is_some() {}
            // Prompts that were computed here are still to be read by who decodes them.
            tokio::select! {
                () = ending.cancelled() => {}
                () = given_away(&engines) => {}
            }
            meeting.abort();
            drivers.shutdown().await;
        });
        Ok(Self {
            addresses,
            supervisor: supervisor_address,
            group: group_address,
            drain: config.drain,
            stop,
            kill,
            server: Some(server),
        })
    }

    /// Where it listens; the first rank's port where each has its own.
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Where it listens, in order of the ranks where each has its own port.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where its supervisor listens.
    pub fn supervisor(&self) -> Option<SocketAddr> {
        self.supervisor
    }

    /// Where it listens for the other processes of its group.
    pub fn group(&self) -> Option<SocketAddr> {
        self.group
    }

    /// Stops accepting, waits for open requests and for held blocks to be read up to the drain time, then cuts what is
    /// left.
    pub async fn stop(&mut self) {
        self.stop.cancel();
        let Some(mut server) = self.server.take() else {
            return;
        };
        if tokio::time::timeout(self.drain, &mut server).await.is_err() {
            self.kill.cancel();
            // The server task ends at its next await; an error would be its panic, reported already.
            let _ = server.await;
        }
        self.kill.cancel();
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.stop.cancel();
        self.kill.cancel();
    }
}

/// Until no engine holds blocks for others: they were read, or their lease is over.
async fn given_away(engines: &[EngineHandle]) {
    for engine in engines {
        while engine.holds().await {
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// One listener, or one per rank.
async fn listen_for(config: &SimConfig) -> Result<Vec<TcpListener>, SimError> {
    if config.ranks.ports == PortsOfRanks::One {
        return Ok(vec![listen(&config.host, config.port).await?]);
    }
    let mut listeners = Vec::with_capacity(config.ranks.local);
    for local in 0..config.ranks.local {
        // The range was checked with the flags.
        let port = match config.port {
            0 => 0,
            port => port.saturating_add(u16::try_from(local).unwrap_or(u16::MAX)),
        };
        listeners.push(listen(&config.host, port).await?);
    }
    Ok(listeners)
}

async fn listen(host: &str, port: u16) -> Result<TcpListener, SimError> {
    let bound = TcpListener::bind((host.trim_matches(['[', ']']), port)).await;
    bound.map_err(|source| SimError::Listen {
        address: format!("{host}:{port}"),
        source,
    })
}

/// The port on which others ask for blocks, where this engine holds any.
async fn side_channel(
    config: &SimConfig,
    name: String,
    rank: usize,
) -> Result<Option<SideChannel>, SimError> {
    let settings = &config.transfer;
    let Some(transfer) = settings.config.filter(KvTransferConfig::gives) else {
        return Ok(None);
    };
    let identity = Identity {
        engine: name,
        revision: settings.revision.clone(),
        block_size: config.engine.block_size,
        lease: transfer.lease,
    };
    let port = port_of(settings.port, rank);
    let channel = SideChannel::bind(&settings.host, port, identity).await;
    channel.map(Some).map_err(|source| SimError::SideChannel {
        address: format!("{}:{port}", settings.host),
        source,
    })
}

/// What an engine does with images, videos and audio; others can ask from now on.
async fn media(config: &SimConfig, rank: usize, kill: &CancellationToken) -> Result<Media, SimError> {
    let cache = Arc::new(EncoderCache::default());
    let settings = config.encodings.clone();
    let mut port = 0;
    if let Some(settings) = settings.as_ref().filter(|settings| settings.gives()) {
        let wanted = port_of(settings.port, rank);
        let channel = EncodingChannel::bind(&settings.host, wanted).await;
        let channel = channel.map_err(|source| SimError::Encodings {
            address: format!("{}:{wanted}", settings.host),
            source,
        })?;
        port = channel.address().map_err(SimError::Address)?.port();
        tokio::spawn(channel.serve(cache.clone(), kill.clone()));
    }
    Ok(Media {
        settings,
        port,
        cache,
    })
}

/// Port of a rank's side channel: vLLM adds the rank; 0 stays.
fn port_of(first: u16, rank: usize) -> u16 {
    match first {
        0 => 0,
        first => first.saturating_add(u16::try_from(rank).unwrap_or(u16::MAX)),
    }
}

async fn serve(listener: TcpListener, front: Arc<Front>, stop: CancellationToken, kill: CancellationToken) {
    let connections = tokio_util::task::TaskTracker::new();
    loop {
        let (stream, _) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors and the like: clients that leave make room.
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        // Small chunks must leave at once; a socket that refuses the option still works.
        let _ = stream.set_nodelay(true);
        let (front, stop, kill) = (front.clone(), stop.clone(), kill.clone());
        connections.spawn(async move {
            let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            builder
                .http1()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT);
            builder.http2().timer(TokioTimer::new());
            let handler = hyper::service::service_fn(move |request| {
                let front = front.clone();
                async move { front.handle(request).await }
            });
            let connection = builder.serve_connection(TokioIo::new(stream), handler);
            tokio::pin!(connection);
            let stopping = async {
                stop.cancelled().await;
            };
            tokio::pin!(stopping);
            let mut draining = false;
            loop {
                tokio::select! {
                    // An error here is a client that left or a cut that was asked for.
                    _ = connection.as_mut() => return,
                    () = kill.cancelled() => return,
                    () = stopping.as_mut(), if !draining => {
                        draining = true;
                        connection.as_mut().graceful_shutdown();
                    }
                }
            }
        });
    }
    drop(listener);
    drop(front);
    connections.close();
    tokio::select! {
        () = connections.wait() => {}
        () = kill.cancelled() => {}
    }
}
