//! Legs that follow each other: the prompt is computed, then the decode engine is told.

use bytes::Bytes;
use http::request;
use llmd_openai::{CachedTokens, EditError};
use llmd_proxy::LocalReply;
use tracing::Span;

use super::prefill::{self, Leg, OnFailure};
use super::{Legs, bad_body, hold_to, pass_on, request_id, told};
use crate::connector::Connector;
use crate::connector::nixlv2::{self, Prefilled};
use crate::connector::shared_storage;
use crate::metrics::Prefill;
use crate::route::Shared;

/// What the decode engine gets.
pub(crate) struct Decode {
    pub(crate) body: Vec<Bytes>,
    /// Corrects its count of cached tokens, which has every block that it read.
    pub(crate) cached: Option<CachedTokens>,
    /// The rank that it is held to.
    pub(crate) rank: Option<String>,
}

impl Decode {
    fn of(body: Vec<Bytes>) -> Self {
        Self {
            body,
            cached: None,
            rank: None,
        }
    }
}

/// Has the prompt computed elsewhere.
///
/// # Errors
/// The reply to the client.
pub(crate) async fn run(
    shared: &Shared,
    head: &request::Parts,
    body: &[Bytes],
    legs: &Legs,
    trace: &Span,
) -> Result<Decode, LocalReply> {
    let mut head = head.clone();
    if let Connector::Moriio(moriio) = &shared.connector {
        let rank = moriio.rank(request_id(&head));
        hold_to(&mut head, moriio.rank_header(rank).as_deref());
    }
    let mut prefills = Vec::with_capacity(legs.prefillers.len());
    for host in &legs.prefillers {
        let leg = prefill_body(shared, &head, body, legs, host).await;
        prefills.push((host.clone(), leg.map_err(|error| bad_body(&error))?));
    }
    let metrics = &shared.metrics;
    match prefill::run(shared, trace, &head, &prefills, shared.on_failure).await {
        Leg::Done(answer) => {
            metrics.ended(Prefill::Remote);
            let decode = decode(shared, &head, body, &answer).await;
            decode.map_err(|error| bad_body(&error))
        }
        Leg::Refused(response) => {
            metrics.ended(Prefill::Failed);
            Err(pass_on(response))
        }
        Leg::Failed(error) if shared.on_failure == OnFailure::Fallback => {
            metrics.ended(Prefill::Local);
            tracing::warn!(%error, "no prefill engine computed a prompt: the decode engine does");
            let body = alone(&shared.connector, body).map_err(|error| bad_body(&error))?;
            Ok(Decode::of(body))
        }
        Leg::Failed(error) => {
            metrics.ended(Prefill::Failed);
            Err(told(error))
        }
    }
}

async fn prefill_body(
    shared: &Shared,
    head: &request::Parts,
    body: &[Bytes],
    legs: &Legs,
    host: &str,
) -> Result<Vec<Bytes>, EditError> {
    let source = legs.source.as_deref();
    match &shared.connector {
        Connector::Moriio(moriio) => {
            moriio
                .prefill(&shared.peers, body, legs.api, (host, source), request_id(head))
                .await
        }
        Connector::SharedStorage => shared_storage::prefill(body),
        _ => nixlv2::prefill(body, legs.api, shared.peers.source_for(host, source)),
    }
}

async fn decode(
    shared: &Shared,
    head: &request::Parts,
    body: &[Bytes],
    answer: &Bytes,
) -> Result<Decode, EditError> {
    if let Connector::SharedStorage = &shared.connector {
        return Ok(Decode::of(shared_storage::decode(body)?));
    }
    let prefilled = Prefilled::read(answer);
    if prefilled.params().is_none() {
        tracing::warn!("a prefill engine named no blocks: is its KV connector configured?");
    }
    let (body, rank) = match &shared.connector {
        Connector::Moriio(moriio) => {
            let (body, rank) = moriio.decode(body, prefilled.params(), request_id(head)).await?;
            (body, moriio.rank_header(rank))
        }
        _ => (prefilled.decode(body)?, None),
    };
    Ok(Decode {
        body,
        cached: Some(CachedTokens::new(prefilled.cached_tokens())),
        rank,
    })
}

/// The body of a request whose prompt the decode engine computes itself.
pub(crate) fn alone(connector: &Connector, body: &[Bytes]) -> Result<Vec<Bytes>, EditError> {
    match connector {
        // Else it would refuse what it has too little of.
        Connector::SharedStorage => shared_storage::decode(body),
        _ => Ok(body.to_vec()),
    }
}
