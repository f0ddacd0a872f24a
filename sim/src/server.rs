//! The HTTP server: listen, accept, drain.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::args::{ConfigError, SimArgs, SimConfig};
use crate::driver::Driver;
use crate::engine::{Engine, Timing};
use crate::metrics::Metrics;
use crate::service::{Ports, Service};
use crate::transfer::give::Identity;
use crate::transfer::{KvTransferConfig, SideChannel};

/// Time a client has to send its request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

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
    address: SocketAddr,
    drain: Duration,
    stop: CancellationToken,
    kill: CancellationToken,
    server: Option<tokio::task::JoinHandle<()>>,
}

impl Simulator {
    /// Listens and serves; port 0 takes a free one.
    pub async fn start(config: SimConfig) -> Result<Self, SimError> {
        let host = config.host.trim_matches(['[', ']']);
        let listen = |source| SimError::Listen {
            address: format!("{}:{}", config.host, config.port),
            source,
        };
        let listener = TcpListener::bind((host, config.port)).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let metrics = Arc::new(Metrics::new(&config)?);
        let timing = Timing::new(config.model, config.overrides, config.jitter, config.seed);
        let (driver, engine) = Driver::new(Engine::new(config.engine, timing), metrics.clone());
        let drain = config.drain;
        let (stop, kill) = (CancellationToken::new(), CancellationToken::new());
        let name = format!("{:016x}", fastrand::u64(..));
        let side_channel = side_channel(&config, name.clone()).await?;
        let ports = Ports {
            http: address.port(),
            side_channel: match &side_channel {
                Some(channel) => channel.address().map_err(listen)?.port(),
                None => 0,
            },
        };
        if let Some(channel) = side_channel {
            // Blocks are read while the last requests end: it goes with the engine, not with the listener.
            tokio::spawn(channel.serve(engine.clone(), kill.clone()));
        }
        let service = Arc::new(Service::new(config, engine, metrics, name, ports));
        let server = tokio::spawn(serve(listener, service, driver, stop.clone(), kill.clone()));
        Ok(Self {
            address,
            drain,
            stop,
            kill,
            server: Some(server),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, waits for open requests up to the drain time, then cuts what is left.
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
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.stop.cancel();
        self.kill.cancel();
    }
}

/// The port on which others ask for blocks, where this engine holds any.
async fn side_channel(config: &SimConfig, name: String) -> Result<Option<SideChannel>, SimError> {
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
    let channel = SideChannel::bind(&settings.host, settings.port, identity).await;
    channel.map(Some).map_err(|source| SimError::SideChannel {
        address: format!("{}:{}", settings.host, settings.port),
        source,
    })
}

async fn serve(
    listener: TcpListener,
    service: Arc<Service>,
    driver: Driver,
    stop: CancellationToken,
    kill: CancellationToken,
) {
    let driver = tokio::spawn(driver.run());
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
        let (service, stop, kill) = (service.clone(), stop.clone(), kill.clone());
        connections.spawn(async move {
            let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            builder
                .http1()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT);
            builder.http2().timer(TokioTimer::new());
            let handler = hyper::service::service_fn(move |request| {
                let service = service.clone();
                async move { service.handle(request).await }
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
    drop(service);
    connections.close();
    tokio::select! {
        () = connections.wait() => {}
        () = kill.cancelled() => {}
    }
    driver.abort();
}
