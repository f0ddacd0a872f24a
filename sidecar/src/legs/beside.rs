//! Legs that run at the same time: the decode engine waits for the blocks itself.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use http::{StatusCode, request};
use llmd_proxy::LocalReply;
use tokio::task::JoinError;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tracing::Span;

use super::prefill::{self, Leg, LegError, OnFailure};
use super::{Legs, bad_body, hold_to, pass_on, request_id, told};
use crate::connector::{Connector, Pair, PairError};
use crate::error;
use crate::metrics::Prefill;
use crate::route::Shared;

/// A prefill leg that runs, and what is needed to begin another one.
pub(crate) struct Beside {
    shared: Arc<Shared>,
    /// `None` once it ended.
    leg: Option<AbortOnDropHandle<Leg>>,
    host: String,
    /// As the client sent it, for the engines that are left.
    head: request::Parts,
    body: Vec<Bytes>,
    legs: Legs,
    left: VecDeque<String>,
    trace: Span,
}

/// What the decode engine gets: a leg that belongs to one that runs, or the request as it came.
pub(crate) enum Begun {
    Pair(Box<Beside>, Vec<Bytes>),
    Alone(Vec<Bytes>),
}

/// Begins the prefill leg with the first engine that can be spoken with.
///
/// # Errors
/// The reply to the client.
pub(crate) async fn begin(
    shared: Arc<Shared>,
    head: request::Parts,
    body: Vec<Bytes>,
    legs: Legs,
    trace: Span,
) -> Result<Begun, LocalReply> {
    let left = legs.prefillers.iter().cloned().collect();
    begin_with(shared, head, body, legs, left, trace).await
}

async fn begin_with(
    shared: Arc<Shared>,
    head: request::Parts,
    body: Vec<Bytes>,
    legs: Legs,
    mut left: VecDeque<String>,
    trace: Span,
) -> Result<Begun, LocalReply> {
    while let Some(host) = left.pop_front() {
        let source = legs.source.as_deref();
        let pair = shared
            .connector
            .pair(&shared.peers, &body, legs.api, &host, source, request_id(&head))
            .await;
        match pair {
            Ok(Pair {
                prefill,
                decode,
                prefill_rank,
            }) => {
                let mut leg_head = head.clone();
                hold_to(&mut leg_head, prefill_rank.as_deref());
                let leg = AbortOnDropHandle::new(tokio::spawn(send(
                    Arc::clone(&shared),
                    leg_head,
                    (host.clone(), prefill),
                    trace.clone(),
                )));
                let beside = Beside {
                    shared,
                    leg: Some(leg),
                    host,
                    head,
                    body,
                    legs,
                    left,
                    trace,
                };
                return Ok(Begun::Pair(Box::new(beside), decode));
            }
            Err(PairError::Body(error)) => return Err(bad_body(&error)),
            Err(PairError::Engine(cause)) => {
                shared.metrics.leg_failed(0);
                tracing::warn!(%host, %cause, "a prefill engine cannot be asked");
                if shared.on_failure == OnFailure::Error {
                    shared.metrics.ended(Prefill::Failed);
                    return Err(error::reply(StatusCode::BAD_GATEWAY, &cause));
                }
            }
        }
    }
    shared.metrics.ended(Prefill::Local);
    tracing::warn!("no prefill engine computes a prompt: the decode engine does");
    Ok(Begun::Alone(body))
}

async fn send(shared: Arc<Shared>, head: request::Parts, leg: (String, Vec<Bytes>), trace: Span) -> Leg {
    // Other engines are asked with other bodies.
    let leg = prefill::run(&shared, &trace, &head, &[leg], OnFailure::Error).await;
    if matches!(leg, Leg::Done(_)) {
        shared.metrics.ended(Prefill::Remote);
    }
    leg
}

impl Beside {
    /// Waits for the leg. `None`: it is done, the decode engine has or gets its blocks.
    ///
    /// # Errors
    /// The reply to the client.
    pub(crate) async fn outcome(&mut self) -> Result<Option<Begun>, LocalReply> {
        let leg = self.ended().await;
        self.judge(leg).await
    }

    /// Like [`Beside::outcome`], where an answer may not be shown before: no longer than MoRI-IO's patience.
    ///
    /// # Errors
    /// The reply to the client.
    pub(crate) async fn confirmed(&mut self) -> Result<Option<Begun>, LocalReply> {
        let Connector::Moriio(moriio) = &self.shared.connector else {
            return Ok(None);
        };
        let patience = moriio.patience;
        if let Ok(leg) = timeout(patience, self.ended()).await {
            return self.judge(leg).await;
        }
        self.shared.metrics.ended(Prefill::Failed);
        let message = format!("{} did not compute the prompt within {patience:?}", self.host);
        Err(error::reply(StatusCode::GATEWAY_TIMEOUT, &message))
    }

    async fn ended(&mut self) -> Leg {
        let ended = match &mut self.leg {
            Some(leg) => leg.await,
            // It failed, and nobody could do something about it then.
            None => return Leg::Failed(LegError::Lost("it ended before".to_owned())),
        };
        self.leg = None;
        ended.unwrap_or_else(|panicked: JoinError| Leg::Failed(LegError::Lost(panicked.to_string())))
    }

    async fn judge(&mut self, leg: Leg) -> Result<Option<Begun>, LocalReply> {
        let metrics = &self.shared.metrics;
        let error = match leg {
            Leg::Done(_) => return Ok(None),
            Leg::Refused(response) => {
                metrics.ended(Prefill::Failed);
                return Err(pass_on(response));
            }
            Leg::Failed(error) => error,
        };
        if let Connector::Mooncake(mooncake) = &self.shared.connector {
            mooncake.forget(&self.host);
        }
        if self.shared.on_failure == OnFailure::Error {
            metrics.ended(Prefill::Failed);
            return Err(told(error));
        }
        tracing::warn!(host = %self.host, %error, "a prefill leg failed beside its decode leg, which begins anew");
        let begun = begin_with(
            Arc::clone(&self.shared),
            self.head.clone(),
            self.body.clone(),
            self.legs.clone(),
            self.left.clone(),
            self.trace.clone(),
        );
        begun.await.map(Some)
    }

    /// The answer is complete; what the prefill engine still does it may finish.
    pub(crate) fn detach(self) {
        if let Some(leg) = self.leg {
            drop(leg.detach());
        }
    }
}
