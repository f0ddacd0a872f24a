//! The ports, bound before anything else happens, and the servers on them. Those for requests open last.

use std::io;
use std::sync::{Arc, Once};
use std::time::Duration;

use llmd_epp_core::Epp;
use llmd_process::admin;
use llmd_proxy::AccessLog;
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::port::Port;
use super::{Addresses, RunError};
use crate::body_budget::BodyBudget;
use crate::builtin_proxy::access_log::{self, Written};
use crate::builtin_proxy::{self, ApiKeys, Continuations, engines};
use crate::datalayer::DataLayer;
use crate::debug;
use crate::eds::Changes;
use crate::extproc::{ExtProc, ReceivedBytes, ShadowMetrics, StreamMetrics};
use crate::flags::{EppOptions, ProxyOptions};
use crate::grpc::{self, MessageLimits, Services, StreamThreads};
use crate::health::Health;
use crate::metrics_auth::{self, MetricsAuth};
use crate::reload::PoolProtocol;
use crate::waiting::WaitingRoom;

/// After `--drain-timeout` open streams may take this many times as long again. With upstream's 30 s
/// that is 120 s, below the chart's grace period of 130 s.
const STREAM_PATIENCE: u32 = 3;

/// How long the access log's writer may take for what is in its queue at the end.
const LAST_LINES: Duration = Duration::from_secs(2);

/// Bound, but not served yet: a taken port is reported before anything else happens.
pub(super) struct Listeners {
    pub(super) health: TcpListener,
    pub(super) metrics: TcpListener,
    /// Who connects is refused until they open.
    pub(super) traffic: TrafficPorts,
}

/// The ports that requests come to.
pub(super) struct TrafficPorts {
    grpc: Port,
    proxy: Option<Port>,
}

impl Listeners {
    pub(super) fn bind(options: &EppOptions) -> Result<Self, RunError> {
        let all = options.bind_address;
        let proxy = options
            .proxy
            .as_ref()
            .map(|proxy| Port::take("proxy-port", Some(proxy.address), proxy.port))
            .transpose()?;
        Ok(Self {
            traffic: TrafficPorts {
                grpc: Port::take("grpc-port", all, options.grpc_port)?,
                proxy,
            },
            health: Port::take("grpc-health-port", all, options.health_port)?.open()?,
            metrics: Port::take("metrics-port", all, options.metrics_port)?.open()?,
        })
    }

    pub(super) fn addresses(&self) -> io::Result<Addresses> {
        let TrafficPorts { grpc, proxy } = &self.traffic;
        Ok(Addresses {
            grpc: grpc.socket.local_addr()?,
            health: self.health.local_addr()?,
            metrics: self.metrics.local_addr()?,
            proxy: proxy.as_ref().map(|port| port.socket.local_addr()).transpose()?,
        })
    }
}

/// Starts the writer of the access log, if there is one.
fn access_log(proxy: &ProxyOptions, registry: &Registry) -> Result<Option<(AccessLog, Written)>, RunError> {
    let dropped = access_log::register_dropped(registry)?;
    let Some(log) = &proxy.access_log else {
        return Ok(None);
    };
    let started = access_log::Destination::new(log.file.as_deref())
        .and_then(|output| access_log::start(log.format, output, dropped));
    started.map(Some).map_err(RunError::AccessLog)
}

/// Everything the servers share.
pub(super) struct Servers<'a> {
    pub(super) options: &'a EppOptions,
    pub(super) registry: Registry,
    pub(super) health: Health,
    pub(super) layer: DataLayer,
    pub(super) epp: Arc<Epp>,
    /// Told about each new set of endpoints.
    pub(super) endpoint_changes: Arc<Changes>,
    /// Where requests wait while the pool is empty.
    pub(super) waiting: Option<Arc<WaitingRoom>>,
    pub(super) tls: Option<Arc<rustls::ServerConfig>>,
    /// For the connections of `ext_proc`; `None` takes the caller's runtime.
    pub(super) threads: Option<StreamThreads>,
    /// Of the built-in proxy; `None` serves plain HTTP.
    pub(super) proxy_tls: Option<Arc<rustls::ServerConfig>>,
    /// What the engines speak, as their pool says.
    pub(super) pool_protocol: PoolProtocol,
    /// The drain has begun: clients shall open no request on the connections they have.
    pub(super) closing: CancellationToken,
    pub(super) stop: CancellationToken,
}

impl Servers<'_> {
    /// Opens the ports for requests.
    pub(super) fn start(self, ports: TrafficPorts) -> Result<Vec<JoinHandle<()>>, RunError> {
        let Self {
            options,
            registry,
            health,
            layer,
            epp,
            endpoint_changes,
            waiting,
            tls,
            threads,
            proxy_tls,
            pool_protocol,
            closing,
            stop,
        } = self;
        let patience = options.drain_timeout * STREAM_PATIENCE;
        let (pool, outcomes, told) = (layer.clone(), layer.clone(), layer.clone());
        let ext_proc = ExtProc {
            epp: Arc::clone(&epp),
            snapshots: Arc::new(move || pool.routable()),
            answers: Arc::new(move |endpoint, is_well, now| {
                if is_well {
                    outcomes.report_answered(endpoint);
                } else {
                    outcomes.report_failed(endpoint, now);
                }
            }),
            emit_endpoint_scores: options.emit_endpoint_scores,
            warned: Once::new(),
            received: ReceivedBytes::register(&registry)?,
            stream_metrics: options
                .stream_metrics
                .then(|| StreamMetrics::register(&registry))
                .transpose()?,
            shadow: options
                .shadow
                .then(|| ShadowMetrics::register(&registry).map(Arc::new))
                .transpose()?,
            bodies: Arc::new(BodyBudget::new(options.max_buffered_bodies)),
            waiting: waiting.clone(),
            tracing: options.tracing,
        };
        let mut running = Vec::new();
        let services = Services {
            ext_proc: Some(Arc::new(ext_proc)),
            eds: (!options.shadow)
                .then(|| endpoint_changes.service(Arc::new(move || told.snapshot()), stop.clone())),
            health: options.health_on_grpc_port.then(|| health.clone()),
            limits: options.messages,
        };
        running.push(tokio::spawn(grpc::serve(
            ports.grpc.open()?,
            tls,
            services,
            threads,
            stop.clone(),
            patience,
        )));
        if let (Some(port), Some(proxy)) = (ports.proxy, &options.proxy) {
            let listener = port.open()?;
            let ready = health.clone();
            let (log, written) = access_log(proxy, &registry)?.unzip();
            let proxy_options = builtin_proxy::Options {
                api_keys: proxy.api_key_file.as_deref().map(ApiKeys::read).transpose()?,
                continuations: proxy
                    .stream_continuation
                    .then(|| Continuations::register(&registry))
                    .transpose()?,
                waiting,
                limits: llmd_proxy::Limits {
                    request_body_bytes: options.max_request_body,
                    held_body_bytes: options.max_buffered_bodies,
                    drain: patience,
                    ..proxy.limits.clone()
                },
                tls: proxy_tls,
                trusts_forwarded: proxy.trusts_forwarded,
                engines: engines::protocol(&proxy.engines, pool_protocol).map_err(RunError::Engines)?,
                access_log: log,
                tracing: options.tracing,
                is_ready: Arc::new(move || ready.is_ready()),
                closing,
            };
            let server = builtin_proxy::serve(
                listener,
                Arc::clone(&epp),
                layer.clone(),
                proxy_options,
                stop.clone(),
            );
            running.push(tokio::spawn(async move {
                if let Err(error) = server.await {
                    tracing::warn!(%error, "the built-in proxy ended");
                }
                if let Some(written) = written
                    && timeout(LAST_LINES, written).await.is_err()
                {
                    tracing::warn!("the last lines of the access log are lost");
                }
            }));
        }
        Ok(running)
    }
}

/// What is answered from the beginning: probes, metrics and debug pages.
pub(super) struct Probes {
    pub(super) health: Health,
    pub(super) limits: MessageLimits,
    pub(super) registry: Registry,
    pub(super) layer: DataLayer,
    pub(super) epp: Arc<Epp>,
    /// Who may read metrics and debug pages; `None` lets everybody.
    pub(super) metrics_auth: Option<MetricsAuth>,
    /// Of the metrics port; `None` serves plain HTTP.
    pub(super) metrics_tls: Option<Arc<rustls::ServerConfig>>,
    pub(super) stop: CancellationToken,
}

impl Probes {
    pub(super) fn start(self, health: TcpListener, metrics: TcpListener) -> Vec<JoinHandle<()>> {
        let services = Services {
            ext_proc: None,
            eds: None,
            health: Some(self.health),
            limits: self.limits,
        };
        // Probes are short: nothing of theirs is worth waiting for.
        let health = grpc::serve(health, None, services, None, self.stop.clone(), Duration::ZERO);
        let pages = debug::router(self.layer).merge(debug::plugins(self.epp));
        let mut pages = admin::pages(self.registry, pages);
        if let Some(auth) = self.metrics_auth {
            pages = pages.layer(axum::middleware::from_fn_with_state(auth, metrics_auth::guard));
        }
        let (tls, stop) = (self.metrics_tls, self.stop);
        let metrics = async move {
            let served = match tls {
                Some(tls) => admin::serve_pages_over_tls(metrics, tls, pages, stop).await,
                None => admin::serve_pages(metrics, pages, stop).await,
            };
            if let Err(error) = served {
                tracing::warn!(%error, "the metrics server ended");
            }
        };
        vec![tokio::spawn(health), tokio::spawn(metrics)]
    }
}
