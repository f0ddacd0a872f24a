//! Kept-alive connections per target, bounded in number and age.
//!
//! An HTTP/1.1 connection is taken out for one request and put back; an HTTP/2 one stays and is shared by
//! as many requests as its target takes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};

use crate::body::TargetBody;
use crate::connect::{ConnectError, Opened, TargetProtocol, connect};
use crate::limits::Limits;

/// Requests on one HTTP/2 connection before another one is opened; many servers take no more than 100, and what
/// is beyond a server's own limit waits.
const STREAMS: usize = 100;

/// Idle for less than this, a connection is not about to be closed for it: servers wait for seconds.
const LIVELY: Duration = Duration::from_secs(1);

/// A connection that is free for one request.
pub(crate) struct Connection {
    pub(crate) sender: Sender,
    /// Whether the connection carried a request before: it may have gone stale unnoticed.
    pub(crate) reused: bool,
    pub(crate) is_secure: bool,
}

/// What sends one request. It is kept until the answer is over.
pub(crate) enum Sender {
    Http1(http1::SendRequest<TargetBody>),
    /// A share of a connection; the count of shares is its load.
    Http2 {
        sender: http2::SendRequest<TargetBody>,
        _share: Arc<()>,
    },
}

impl Sender {
    pub(crate) fn is_http2(&self) -> bool {
        matches!(self, Self::Http2 { .. })
    }

    pub(crate) async fn send(&mut self, request: Request<TargetBody>) -> hyper::Result<Response<Incoming>> {
        match self {
            Self::Http1(sender) => sender.send_request(request).await,
            Self::Http2 { sender, .. } => sender.send_request(request).await,
        }
    }
}

struct Idle {
    sender: http1::SendRequest<TargetBody>,
    since: Instant,
}

struct Shared {
    sender: http2::SendRequest<TargetBody>,
    load: Arc<()>,
    used: Instant,
}

impl Shared {
    /// Requests in flight.
    fn load(&self) -> usize {
        Arc::strong_count(&self.load) - 1
    }
}

/// The connections to one target.
#[derive(Default)]
struct Kept {
    idle: Vec<Idle>,
    shared: Vec<Shared>,
}

/// The connections of one server.
pub(crate) struct Pool {
    kept: Mutex<HashMap<SocketAddr, Kept>>,
    protocol: TargetProtocol,
    per_target: usize,
    max_age: Duration,
    connect: Duration,
}

impl Pool {
    pub(crate) fn new(limits: &Limits, protocol: TargetProtocol) -> Self {
        Self {
            kept: Mutex::default(),
            protocol,
            per_target: limits.idle_connections_per_target,
            max_age: limits.idle_connection,
            connect: limits.connect,
        }
    }

    /// A connection to `target`: a share of one, the most recently used idle one, else a new one.
    pub(crate) async fn get(&self, target: SocketAddr) -> Result<Connection, ConnectError> {
        self.get_not_idle_for(target, self.max_age).await
    }

    /// Like [`Pool::get`], for a request that cannot be sent again: a connection that was in use a moment ago is not
    /// closed for its idleness while the request is on its way.
    pub(crate) async fn get_lively(&self, target: SocketAddr) -> Result<Connection, ConnectError> {
        self.get_not_idle_for(target, LIVELY.min(self.max_age)).await
    }

    async fn get_not_idle_for(
        &self,
        target: SocketAddr,
        longest: Duration,
    ) -> Result<Connection, ConnectError> {
        while let Some(mut sender) = self.take(target, longest) {
            // Just given back, the connection's own task may not have finished its bookkeeping.
            let is_ready = match &mut sender {
                Sender::Http1(sender) => sender.ready().await.is_ok(),
                Sender::Http2 { .. } => true,
            };
            if is_ready {
                return Ok(self.connection(sender, true));
            }
        }
        self.fresh(target).await
    }

    /// A new connection to `target`.
    pub(crate) async fn fresh(&self, target: SocketAddr) -> Result<Connection, ConnectError> {
        let sender = match connect(target, &self.protocol, self.connect).await? {
            Opened::Http1(sender) => Sender::Http1(sender),
            Opened::Http2(sender) => self.share(target, sender),
        };
        Ok(self.connection(sender, false))
    }

    fn connection(&self, sender: Sender, reused: bool) -> Connection {
        Connection {
            sender,
            reused,
            is_secure: self.protocol.tls.is_some(),
        }
    }

    fn share(&self, target: SocketAddr, sender: http2::SendRequest<TargetBody>) -> Sender {
        let load = Arc::new(());
        let share = Sender::Http2 {
            sender: sender.clone(),
            _share: Arc::clone(&load),
        };
        let mut kept = self.kept();
        let connections = &mut kept.entry(target).or_default().shared;
        if connections.len() < self.per_target {
            connections.push(Shared {
                sender,
                load,
                used: Instant::now(),
            });
        }
        share
    }

    /// Keeps a connection whose answer was read to its end.
    pub(crate) fn put(&self, target: SocketAddr, sender: Sender) {
        let Sender::Http1(sender) = sender else {
            return;
        };
        if sender.is_closed() {
            return;
        }
        let mut kept = self.kept();
        let connections = &mut kept.entry(target).or_default().idle;
        if connections.len() < self.per_target {
            connections.push(Idle {
                sender,
                since: Instant::now(),
            });
        }
    }

    /// Forgets connections that are closed or too old, and targets without any.
    pub(crate) fn sweep(&self) {
        self.kept().retain(|_, connections| {
            connections
                .idle
                .retain(|one| !one.sender.is_closed() && one.since.elapsed() < self.max_age);
            connections.shared.retain(|one| {
                !one.sender.is_closed() && (one.load() > 0 || one.used.elapsed() < self.max_age)
            });
            !(connections.idle.is_empty() && connections.shared.is_empty())
        });
    }

    fn take(&self, target: SocketAddr, longest: Duration) -> Option<Sender> {
        let mut kept = self.kept();
        let connections = kept.get_mut(&target)?;
        connections.shared.retain(|one| !one.sender.is_closed());
        let free = |one: &&mut Shared| one.load() < STREAMS;
        if let Some(one) = connections.shared.iter_mut().find(free) {
            one.used = Instant::now();
            return Some(Sender::Http2 {
                sender: one.sender.clone(),
                _share: Arc::clone(&one.load),
            });
        }
        while let Some(Idle { sender, since }) = connections.idle.pop() {
            if sender.is_closed() {
                continue;
            }
            if since.elapsed() < longest {
                return Some(Sender::Http1(sender));
            }
            // The last one was used last: the others have been idle for longer. A new one takes its place.
            return None;
        }
        None
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<SocketAddr, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
