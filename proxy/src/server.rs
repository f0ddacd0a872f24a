//! Client side: accepts connections, bounds them, and drains at shutdown.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::exchange::{Shared, serve};
use crate::limits::Limits;
use crate::pool::Pool;
use crate::route::Route;

/// How long a client may take to send a request head.
const HEAD_DEADLINE: Duration = Duration::from_secs(30);
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
            pool: Pool::new(&limits),
            route,
            limits,
            permits,
            closing: CancellationToken::new(),
        })
    }

    /// Once `closing` is cancelled, each HTTP/1 answer closes its connection, so that clients come back on another
    /// one, which may lead elsewhere. Requests are taken as before.
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
        let graceful = GracefulShutdown::new();
        let mut http = auto::Builder::new(TokioExecutor::new());
        http.http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_DEADLINE);
        http.http2().timer(TokioTimer::new()).max_concurrent_streams(1024);
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
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%peer, %error, "cannot switch off Nagle's algorithm");
            }
            let mine = Arc::clone(&shared);
            let service = service_fn(move |request| {
                let shared = Arc::clone(&mine);
                async move { Ok::<_, Infallible>(serve(shared, request, peer).await) }
            });
            let connection =
                graceful.watch(http.serve_connection(TokioIo::new(stream), service).into_owned());
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%peer, %error, "client connection ended");
                }
                drop(permit);
            });
        }
        drop(listener);
        drain(&shared, graceful).await
    }
}

async fn drain<R: Route>(shared: &Shared<R>, graceful: GracefulShutdown) -> Result<(), ServeError> {
    let limits = &shared.limits;
    if tokio::time::timeout(limits.drain, graceful.shutdown())
        .await
        .is_ok()
    {
        return Ok(());
    }
    Err(ServeError::DrainDeadline(
        limits.concurrent_requests - shared.permits.available_permits(),
    ))
}
