//! Requests of our own, beside the one that is forwarded: the legs before an answer.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Response, request};
use http_body_util::BodyExt;
use tokio::time::timeout;

use crate::attempt::{Failed, attempt};
use crate::body::{HeldBody, TargetBody};
use crate::connect::TargetProtocol;
use crate::limits::Limits;
use crate::pool::Pool;
use crate::relay::Started;

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No connection, or one that broke.
    #[error("{target} failed: {cause}")]
    Failed {
        /// Who was called.
        target: SocketAddr,
        /// What happened.
        cause: String,
    },
    /// The answer did not begin in time, or paused for too long.
    #[error("{target} did not answer within {after:?}")]
    Deadline {
        /// Who was called.
        target: SocketAddr,
        /// How long it had.
        after: Duration,
    },
    /// The answer is longer than the caller takes.
    #[error("the answer of {target} is longer than {limit} bytes")]
    TooLong {
        /// Who was called.
        target: SocketAddr,
        /// Most bytes of an answer.
        limit: usize,
    },
}

/// Sends requests and reads their whole answers; connections are kept. Dropping a call ends its connection, so
/// that the other side stops its work.
pub struct Caller {
    pool: Pool,
    limits: Limits,
}

impl Caller {
    /// A caller that keeps to `limits` and speaks `protocol`.
    pub fn new(limits: Limits, protocol: TargetProtocol) -> Self {
        Self {
            pool: Pool::new(&limits, protocol),
            limits,
        }
    }

    /// Sends `head` with `body` to `target` and reads at most `longest` bytes of the answer. A connection that was
    /// kept open and turns out to be closed is opened anew once.
    ///
    /// # Errors
    /// There is no whole answer.
    pub async fn call(
        &self,
        target: SocketAddr,
        head: &request::Parts,
        body: Vec<Bytes>,
        longest: usize,
    ) -> Result<Response<Bytes>, CallError> {
        let body = HeldBody {
            pieces: VecDeque::from(body),
            trailers: None,
        };
        let started = self.start(target, head, body).await?;
        self.read(started, longest).await
    }

    /// Forgets connections that are closed or too old.
    pub fn sweep(&self) {
        self.pool.sweep();
    }

    async fn start(
        &self,
        target: SocketAddr,
        head: &request::Parts,
        body: HeldBody,
    ) -> Result<Started, CallError> {
        let failed = |cause: String| CallError::Failed { target, cause };
        let mut connection = self.pool.get(target).await;
        loop {
            let opened = connection.map_err(|error| failed(error.to_string()))?;
            let reused = opened.reused;
            let held = TargetBody::Held(body.clone());
            match attempt(opened, head, held, target, &self.limits).await {
                Ok(started) => return Ok(started),
                Err(Failed::Broken(_)) if reused => connection = self.pool.fresh(target).await,
                Err(Failed::Broken(cause)) => return Err(failed(cause)),
                Err(Failed::TooLarge) => return Err(failed("the body is larger than the limit".to_owned())),
                Err(Failed::Deadline) => {
                    return Err(CallError::Deadline {
                        target,
                        after: self.limits.response_head,
                    });
                }
            }
        }
    }

    async fn read(&self, started: Started, longest: usize) -> Result<Response<Bytes>, CallError> {
        let Started {
            head,
            first,
            mut body,
            sender,
            target,
            ..
        } = started;
        let mut whole: Vec<Bytes> = Vec::new();
        let mut size = 0;
        let mut next = first;
        while let Some(frame) = next {
            if let Ok(data) = frame.into_data() {
                size += data.len();
                if size > longest {
                    return Err(CallError::TooLong {
                        target,
                        limit: longest,
                    });
                }
                whole.push(data);
            }
            let frame = timeout(self.limits.response_idle, body.frame()).await;
            let frame = frame.map_err(|_| CallError::Deadline {
                target,
                after: self.limits.response_idle,
            })?;
            next = frame.transpose().map_err(|error| CallError::Failed {
                target,
                cause: error.to_string(),
            })?;
        }
        self.pool.put(target, sender);
        let body = match whole.len() {
            0 | 1 => whole.pop().unwrap_or_default(),
            _ => {
                let mut joined = BytesMut::with_capacity(size);
                for piece in &whole {
                    joined.extend_from_slice(piece);
                }
                joined.freeze()
            }
        };
        Ok(Response::from_parts(head, body))
    }
}
