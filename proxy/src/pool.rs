//! Kept-alive connections per target, bounded in number and age.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::client::conn::http1::SendRequest;

use crate::body::TargetBody;
use crate::connect::{ConnectError, connect};
use crate::limits::Limits;

/// A connection that is free for one request.
pub(crate) struct Connection {
    pub(crate) sender: SendRequest<TargetBody>,
    /// Whether the connection carried a request before: it may have gone stale unnoticed.
    pub(crate) reused: bool,
}

struct Idle {
    sender: SendRequest<TargetBody>,
    since: Instant,
}

/// The idle connections of one server.
pub(crate) struct Pool {
    idle: Mutex<HashMap<SocketAddr, Vec<Idle>>>,
    per_target: usize,
    max_age: Duration,
    connect: Duration,
}

impl Pool {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            idle: Mutex::default(),
            per_target: limits.idle_connections_per_target,
            max_age: limits.idle_connection,
            connect: limits.connect,
        }
    }

    /// A connection to `target`: the most recently used idle one, else a new one.
    pub(crate) async fn get(&self, target: SocketAddr) -> Result<Connection, ConnectError> {
        while let Some(mut sender) = self.take(target) {
            // Just given back, the connection's own task may not have finished its bookkeeping.
            if sender.ready().await.is_ok() {
                return Ok(Connection { sender, reused: true });
            }
        }
        self.fresh(target).await
    }

    /// A new connection to `target`.
    pub(crate) async fn fresh(&self, target: SocketAddr) -> Result<Connection, ConnectError> {
        Ok(Connection {
            sender: connect(target, self.connect).await?,
            reused: false,
        })
    }

    /// Keeps a connection whose answer was read to its end.
    pub(crate) fn put(&self, target: SocketAddr, sender: SendRequest<TargetBody>) {
        if sender.is_closed() {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let connections = idle.entry(target).or_default();
        if connections.len() < self.per_target {
            connections.push(Idle {
                sender,
                since: Instant::now(),
            });
        }
    }

    /// Forgets connections that are closed or too old, and targets without any.
    pub(crate) fn sweep(&self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|_, connections| {
            connections.retain(|one| !one.sender.is_closed() && one.since.elapsed() < self.max_age);
            !connections.is_empty()
        });
    }

    fn take(&self, target: SocketAddr) -> Option<SendRequest<TargetBody>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let connections = idle.get_mut(&target)?;
        while let Some(Idle { sender, since }) = connections.pop() {
            if !sender.is_closed() && since.elapsed() < self.max_age {
                return Some(sender);
            }
        }
        None
    }
}
