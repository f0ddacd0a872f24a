//! Client side: accepts connections, bounds them, and drains at shutdown.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access_log::AccessLog;
use crate::connect::TargetProtocol;
use crate::connection::{Endings, http, run};
use crate::exchange::Shared;
use crate::held::HeldBytes;
use crate::limits::Limits;
use crate::pool::Pool;
use crate::route::Route;

/// How often idle connections to targets are looked through.
const SWEEP: Duration = Duration::from_secs(10);
/// Pause after a failed accept, which means that file descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why a server ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The listener has no address any more.
    #[error("cannot read the address of the proxy's listener")]
    Listener(#[source] std::io::Error),
    /// Requests were still in flight at the end of the drain.
    #[error("{0} requests were cut off at the end of the drain")]
    DrainDeadline(usize),
}

/// A forwarder on one listener.
pub struct Server<R: Route>(Shared<R>);

impl<R: Route> Server<R> {
    /// A forwarder that asks `route` and keeps to `limits`.
    pub fn new(route: R, limits: Limits) -> Self {
        let permits = Arc::new(Semaphore::new(limits.concurrent_requests));
        Self(Shared {
            pool: Pool::new(&limits, TargetProtocol::default()),
            route,
            limits,
            permits,
            closing: CancellationToken::new(),
            held: HeldBytes::default(),
            tls: None,
            running: TaskTracker::new(),
            cut: CancellationToken::new(),
            access_log: None,
            trusts_forwarded: false,
        })
    }

    /// Speaks TLS with clients; HTTP/2 where `tls` offers `h2` by ALPN.
    #[must_use]
    pub fn with_tls(mut self, tls: Arc<rustls::ServerConfig>) -> Self {
        self.0.tls = Some(tls);
        self
    }

    /// Speaks with targets in another way than plain HTTP/1.1.
    #[must_use]
    pub fn reaching_targets_by(mut self, protocol: TargetProtocol) -> Self {
        self.0.pool = Pool::new(&self.0.limits, protocol);
        self
    }

    /// Believes what clients say in `Forwarded` and `X-Forwarded-*`, and adds to it. Otherwise they are dropped.
    #[must_use]
    pub fn trusting_forwarded_headers(mut self, trusts: bool) -> Self {
        self.0.trusts_forwarded = trusts;
        self
    }

    /// Tells `log` about each request when it is over.
    #[must_use]
    pub fn logging_to(mut self, log: AccessLog) -> Self {
        self.0.access_log = Some(log);
        self
    }

    /// Once `closing` is cancelled, each HTTP/1 answer closes its connection and HTTP/2 connections get a GOAWAY,
    /// so that clients come back on another one, which may lead elsewhere. Requests are taken as before.
    #[must_use]
    pub fn closing_connections_on(mut self, closing: CancellationToken) -> Self {
        self.0.closing = closing;
        self
    }

    /// Serves until `shutdown`, then finishes the requests in flight within the drain deadline.
    ///
    /// # Errors
    /// When requests had to be cut off.
    pub async fn serve(self, listener: TcpListener, shutdown: CancellationToken) -> Result<(), ServeError> {
        let shared = Arc::new(self.0);
        let address = listener.local_addr().map_err(ServeError::Listener)?;
        let connections = Arc::new(Semaphore::new(shared.limits.connections));
        // Whoever drops the server ends its connections.
        let _cut = shared.cut.clone().drop_guard();
        let endings = Endings {
            closing: shared.closing.clone(),
            shutdown: shutdown.clone(),
            cut: shared.cut.clone(),
        };
        let http = http(&shared.limits);
        let mut sweep = tokio::time::interval(SWEEP);

        loop {
            let permit = tokio::select! {
                () = shutdown.cancelled() => break,
                _ = sweep.tick() => {
                    shared.pool.sweep();
                    continue;
                }
                permit = Arc::clone(&connections).acquire_owned() => permit,
            };
            let (stream, peer) = tokio::select! {
                () = shutdown.cancelled() => break,
                _ = sweep.tick() => {
                    shared.pool.sweep();
                    continue;
                }
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::warn!(%address, %error, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                },
            };
            let connection = run(Arc::clone(&shared), stream, peer, http.clone(), endings.clone());
            shared.running.spawn(async move {
                connection.await;
                drop(permit);
            });
        }
        drop(listener);
        shared.running.close();
        let limits = &shared.limits;
        if tokio::time::timeout(limits.drain, shared.running.wait())
            .await
            .is_ok()
        {
            return Ok(());
        }
        Err(ServeError::DrainDeadline(
            limits.concurrent_requests - shared.permits.available_permits(),
        ))
    }
}
