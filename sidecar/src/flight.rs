//! One request on its way to the decode engine.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{StatusCode, request, response};
use llmd_openai::CachedTokens;
use llmd_proxy::{BodyMode, Flight as Forwarded, LocalReply, Outcome, Plan, Resumption};
use tokio_util::task::AbortOnDropHandle;

use crate::api::Api;
use crate::encode::{self, EcConnector, EncodeError};
use crate::error;
use crate::metrics::Prefill;
use crate::nixlv2::{self, Prefilled};
use crate::prefill::{self, Leg, LegError, OnFailure};
use crate::route::{Connector, Shared, prepare};
use crate::sglang;

/// What runs before the decode engine is asked.
pub(crate) struct Legs {
    pub(crate) api: Api,
    /// Prefill engines, best first.
    pub(crate) prefillers: Vec<String>,
    /// Encode engines, where the request has some.
    pub(crate) encoders: Option<(EcConnector, Vec<String>)>,
}

impl Legs {
    fn is_empty(&self) -> bool {
        self.prefillers.is_empty() && self.encoders.is_none()
    }
}

pub(crate) struct Flight {
    shared: Arc<Shared>,
    engine: SocketAddr,
    legs: Option<Legs>,
    /// A prefill leg that runs beside the decode leg.
    beside: Option<AbortOnDropHandle<()>>,
    /// Corrects the decode engine's count, which takes the blocks that it read for cached ones.
    cached: Option<CachedTokens>,
}

impl Flight {
    /// To the decode engine by way of `legs`.
    pub(crate) fn new(shared: Arc<Shared>, engine: SocketAddr, legs: Legs) -> Self {
        Self {
            shared,
            engine,
            legs: Some(legs).filter(|legs| !legs.is_empty()),
            beside: None,
            cached: None,
        }
    }

    /// To the decode engine at once.
    pub(crate) fn straight(shared: Arc<Shared>, engine: SocketAddr) -> Self {
        Self {
            shared,
            engine,
            legs: None,
            beside: None,
            cached: None,
        }
    }

    async fn run(
        &mut self,
        head: &request::Parts,
        mut body: Vec<Bytes>,
        legs: Legs,
    ) -> Result<Vec<Bytes>, LocalReply> {
        if let Some((connector, hosts)) = &legs.encoders {
            let encoded = encode::run(&self.shared.caller, *connector, head, body, hosts).await;
            body = encoded.map_err(|error| {
                let status = match error {
                    EncodeError::Body(_) => StatusCode::BAD_REQUEST,
                    EncodeError::Failed { .. } => StatusCode::BAD_GATEWAY,
                };
                error::reply(status, &error.to_string())
            })?;
        }
        let Some(first) = legs.prefillers.first() else {
            return Ok(body);
        };
        match self.shared.connector {
            Connector::NixlV2 => self.prefill(head, body, (legs.api, legs.prefillers)).await,
            Connector::Sglang { bootstrap_port } => self.meet(head, &body, first, bootstrap_port),
        }
    }

    /// Has the prompt computed at the same time; the engines find each other.
    fn meet(
        &mut self,
        head: &request::Parts,
        body: &[Bytes],
        host: &str,
        bootstrap_port: u16,
    ) -> Result<Vec<Bytes>, LocalReply> {
        let met = sglang::meeting(body, host, bootstrap_port, sglang::room());
        let body = met.map_err(|error| error::reply(StatusCode::BAD_REQUEST, &error.to_string()))?;
        let (shared, head, leg) = (Arc::clone(&self.shared), head.clone(), body.clone());
        let hosts = [host.to_owned()];
        // Dropped with the request: a client that leaves ends both legs.
        self.beside = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            let Shared {
                caller,
                metrics,
                retries,
                ..
            } = &*shared;
            let leg = prefill::run(caller, metrics, &head, &leg, &hosts, (OnFailure::Error, *retries)).await;
            match leg {
                Leg::Done(_) => metrics.ended(Prefill::Remote),
                // The decode engine waits for it and says so itself.
                Leg::Refused(_) | Leg::Failed(_) => metrics.ended(Prefill::Failed),
            }
        })));
        Ok(body)
    }

    /// Has the prompt computed elsewhere and gives the body of the decode leg.
    async fn prefill(
        &mut self,
        head: &request::Parts,
        body: Vec<Bytes>,
        (api, hosts): (Api, Vec<String>),
    ) -> Result<Vec<Bytes>, LocalReply> {
        let Shared {
            caller,
            metrics,
            on_failure,
            retries,
            ..
        } = &*self.shared;
        let leg = match nixlv2::prefill(&body, api) {
            Ok(leg) => leg,
            Err(error) => {
                let message =
                    format!("the request body cannot be split into a prefill and a decode: {error}");
                return Err(error::reply(StatusCode::BAD_REQUEST, &message));
            }
        };
        match prefill::run(caller, metrics, head, &leg, &hosts, (*on_failure, *retries)).await {
            Leg::Done(answer) => {
                metrics.ended(Prefill::Remote);
                let prefilled = Prefilled::read(&answer);
                if !prefilled.has_blocks() {
                    tracing::warn!("a prefill engine named no blocks: is its KV connector configured?");
                }
                self.cached = Some(CachedTokens::new(prefilled.cached_tokens()));
                // The body was edited a moment ago.
                Ok(prefilled.decode(&body).unwrap_or(body))
            }
            Leg::Refused(response) => {
                metrics.ended(Prefill::Failed);
                Err(pass_on(response))
            }
            Leg::Failed(error) if *on_failure == OnFailure::Fallback => {
                metrics.ended(Prefill::Local);
                tracing::warn!(%error, "no prefill engine computed a prompt: the decode engine does");
                Ok(body)
            }
            Leg::Failed(LegError::Status(response)) => {
                metrics.ended(Prefill::Failed);
                Err(pass_on(*response))
            }
            Leg::Failed(error) => {
                metrics.ended(Prefill::Failed);
                Err(error::reply(StatusCode::BAD_GATEWAY, &error.to_string()))
            }
        }
    }
}

/// A prefill engine's answer as the client's.
fn pass_on(response: response::Response<Bytes>) -> LocalReply {
    let (head, body) = response.into_parts();
    let mut reply = LocalReply {
        status: head.status,
        headers: Vec::new(),
        body,
    };
    for (name, value) in &head.headers {
        if name != CONTENT_LENGTH {
            reply = reply.with_header(name.clone(), value.clone());
        }
    }
    reply
}

impl Forwarded for Flight {
    fn body_mode(&self) -> BodyMode {
        match self.legs {
            Some(_) => BodyMode::Buffer,
            None => BodyMode::Stream,
        }
    }

    fn on_request_chunk(&mut self, _: &Bytes) -> Result<(), LocalReply> {
        Ok(())
    }

    async fn plan(&mut self, head: &mut request::Parts, body: Vec<Bytes>) -> Result<Plan, LocalReply> {
        prepare(head);
        let body = match self.legs.take() {
            Some(legs) => self.run(head, body, legs).await?,
            None => body,
        };
        Ok(Plan {
            target: self.engine,
            body,
        })
    }

    async fn replan(&mut self, _: SocketAddr, _: &mut request::Parts) -> Option<SocketAddr> {
        None
    }

    async fn resume(&mut self, _: SocketAddr, _: &mut request::Parts) -> Option<Resumption> {
        None
    }

    fn on_response_head(&mut self, head: &mut response::Parts) {
        if self.cached.is_some() {
            head.headers.remove(CONTENT_LENGTH);
        }
    }

    fn on_response_chunk(&mut self, chunk: Bytes, end: bool, out: &mut Vec<Bytes>) {
        match &mut self.cached {
            Some(cached) => cached.push(chunk, end, out),
            None if chunk.is_empty() => {}
            None => out.push(chunk),
        }
    }

    fn no_target(&self, cause: &str) -> Option<LocalReply> {
        let message = format!("the decode engine at {} does not answer: {cause}", self.engine);
        Some(error::reply(StatusCode::SERVICE_UNAVAILABLE, &message))
    }

    fn on_end(&mut self, _: Outcome) {}
}
