//! The prefill leg: one engine after the other until one computed the prompt.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Response, StatusCode, request};
use llmd_proxy::{CallError, Caller};
use tracing::Span;

use crate::hosts::{self, HostError};
use crate::route::Shared;
use crate::spans;

/// Most bytes of a prefill engine's answer: one token, and the ids of its blocks.
const LONGEST: usize = 64 << 20;

/// What is done when a prefill engine fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnFailure {
    /// The next engine of the list, then the decode engine itself.
    Fallback,
    /// The client is told, as llm-d-router does.
    Error,
}

/// How often one engine is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retries {
    pub(crate) count: u32,
    pub(crate) backoff: Duration,
}

/// What became of the leg.
pub(crate) enum Leg {
    /// The prompt is computed.
    Done(Bytes),
    /// The engine refused the request itself (4xx); another one would as well.
    Refused(Response<Bytes>),
    /// Nobody computed it.
    Failed(LegError),
}

/// Why an engine did not compute a prompt.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LegError {
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("it answered {}", .0.status())]
    Status(Box<Response<Bytes>>),
    #[error("the leg was lost: {0}")]
    Lost(String),
}

impl LegError {
    fn status(&self) -> u16 {
        match self {
            Self::Status(response) => response.status().as_u16(),
            Self::Host(_) | Self::Call(_) | Self::Lost(_) => 0,
        }
    }
}

/// Sends the legs, each to its engine, in turn until one is done; with [`OnFailure::Error`] the first one only.
pub(crate) async fn run(
    shared: &Shared,
    trace: &Span,
    head: &request::Parts,
    legs: &[(String, Vec<Bytes>)],
    on_failure: OnFailure,
) -> Leg {
    let Shared {
        callers,
        metrics,
        connector,
        retries,
        ..
    } = shared;
    let _running = metrics.leg();
    let mut last = None;
    let most = match on_failure {
        OnFailure::Fallback => legs.len(),
        OnFailure::Error => 1,
    };
    for (host, body) in &legs[..most.min(legs.len())] {
        let began = Instant::now();
        let span = spans::prefill(trace, connector, head, host);
        let asked = one(&callers.prefill, &span, head, body, host, *retries).await;
        let status = asked.as_ref().map_or(0, |response| response.status().as_u16());
        spans::prefilled(&span, status, began.elapsed());
        match asked {
            Ok(response) if response.status().is_success() => {
                metrics.leg_took(began.elapsed());
                return Leg::Done(response.into_body());
            }
            Ok(response) if is_final(response.status()) => {
                metrics.leg_failed(response.status().as_u16());
                return Leg::Refused(response);
            }
            Ok(response) => last = Some(LegError::Status(Box::new(response))),
            Err(error) => last = Some(error),
        }
        if let Some(error) = &last {
            metrics.leg_failed(error.status());
            tracing::warn!(%host, %error, "a prefill engine did not compute a prompt");
        }
    }
    Leg::Failed(last.unwrap_or_else(|| HostError::Malformed(String::new()).into()))
}

/// A fault of the request: 429 is one of the engine, 404 and 408 may be.
fn is_final(status: StatusCode) -> bool {
    status.is_client_error()
        && !matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT | StatusCode::NOT_FOUND
        )
}

async fn one(
    caller: &Caller,
    span: &Span,
    head: &request::Parts,
    body: &[Bytes],
    host: &str,
    retries: Retries,
) -> Result<Response<Bytes>, LegError> {
    let target = hosts::resolve(host).await?;
    let mut traced = Cow::Borrowed(head);
    if !span.is_disabled() {
        spans::pass_on(span, traced.to_mut());
    }
    let head = &*traced;
    let mut tries = 0;
    loop {
        let response = caller.call(target, head, body.to_vec(), LONGEST).await?;
        let may_pass = matches!(response.status().as_u16(), 502..=504);
        if !may_pass || tries >= retries.count {
            return Ok(response);
        }
        tries += 1;
        tokio::time::sleep(retries.backoff).await;
    }
}
