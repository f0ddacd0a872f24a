//! What becomes of a request: straight through, or by way of a prefill engine.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderValue, Method, StatusCode, request};
use llmd_openai::header;
use llmd_proxy::{Caller, LocalReply, Route};
use tokio::sync::Semaphore;

use crate::allowed::Allowed;
use crate::api::Api;
use crate::connector::Connector;
use crate::connector::peers::Peers;
use crate::flight::Flight;
use crate::hosts;
use crate::legs::Legs;
use crate::legs::encode::EcConnector;
use crate::legs::prefill::{OnFailure, Retries};
use crate::metrics::{Metrics, Prefill};
use crate::next_turn::{self, NextTurn};

/// Answered here.
const HEALTH: &str = "/health";

/// Who asks the engines of other pods.
pub(crate) struct Callers {
    pub(crate) prefill: Caller,
    pub(crate) encode: Caller,
    /// The engines of this pod, for what no client asked.
    pub(crate) decode: Caller,
}

/// What the requests of all listeners share.
pub(crate) struct Shared {
    pub(crate) callers: Callers,
    pub(crate) connector: Connector,
    pub(crate) metrics: Metrics,
    pub(crate) on_failure: OnFailure,
    pub(crate) retries: Retries,
    pub(crate) peers: Peers,
    /// How embeddings move; `None`: encode engines are not asked.
    pub(crate) embeddings: Option<EcConnector>,
    /// Whether spans are exported.
    pub(crate) traces: bool,
    /// One of the prefill engines by chance instead of the first.
    pub(crate) samples: bool,
    /// Whose addresses requests may name; `None`: any.
    pub(crate) allowed: Option<Allowed>,
    /// Who may prepare a next turn; `None`: nobody.
    pub(crate) next_turns: Option<Arc<Semaphore>>,
    /// Address of this pod, where it is known.
    pub(crate) pod: Option<IpAddr>,
    /// Port of the first listener as the pod's endpoints name it; the other ranks' follow.
    pub(crate) first_port: u16,
}

/// One listener's way.
#[derive(Clone)]
pub(crate) struct Rank {
    pub(crate) shared: Arc<Shared>,
    /// Engines of all ranks, in their order.
    pub(crate) engines: Arc<[SocketAddr]>,
    /// Who cuts the answers of each of them, and the tokens of a part.
    pub(crate) chunkers: Option<(Arc<[SocketAddr]>, u64)>,
    /// Which of them is behind this listener.
    pub(crate) index: u16,
}

impl Rank {
    /// The engine that a request wants: another rank's where the deprecated header names its port.
    fn engine(&self, named: &[String]) -> SocketAddr {
        let port = named
            .first()
            .and_then(|host| host.rsplit_once(':'))
            .and_then(|(_, port)| port.parse::<u16>().ok());
        let rank = port.and_then(|port| port.checked_sub(self.shared.first_port));
        let other = rank.and_then(|rank| self.engines.get(usize::from(rank)));
        other.copied().unwrap_or(self.engines[usize::from(self.index)])
    }

    /// Who cuts the answer of this engine; only chats are.
    fn chunker(&self, api: Api, engine: SocketAddr) -> Option<(SocketAddr, u64)> {
        let (chunkers, tokens) = self.chunkers.as_ref().filter(|_| api == Api::ChatCompletions)?;
        let rank = self.engines.iter().position(|one| *one == engine)?;
        Some((*chunkers.get(rank)?, *tokens))
    }

    /// Whether a request may name this engine.
    fn may_ask(&self, host: &str) -> bool {
        let allowed = self.shared.allowed.as_ref();
        allowed.is_none_or(|allowed| allowed.has(host))
    }

    /// Whether an engine can pull blocks from `source`. The engine here, asked alone, has its own anyway.
    fn can_pull_from(&self, source: &str, alone: bool) -> bool {
        let Shared {
            peers,
            pod,
            first_port,
            ..
        } = &*self.shared;
        let own = pod.map(|pod| SocketAddr::new(pod, first_port + self.index).to_string());
        let is_own = own.as_deref() == Some(hosts::strip_scheme(source));
        peers.can_pull && hosts::port(source).is_some() && !(alone && is_own)
    }

    /// The engine here does all of it: the other engines were chosen for another one, maybe of another revision,
    /// whose blocks it cannot read.
    fn stray(&self, head: &request::Parts, engine: SocketAddr) -> Flight {
        if head.headers.contains_key(header::PREFILLER) {
            tracing::debug!("a request that was meant for another pod: its prompt is computed here");
            self.shared.metrics.ended(Prefill::Local);
        }
        let api = Api::of(head);
        let flight = Flight::straight(Arc::clone(&self.shared), engine);
        flight.chunked(api.and_then(|api| self.chunker(api, engine)))
    }
}

impl Route for Rank {
    type Flight = Flight;

    fn begin(&self, head: &request::Parts, _: SocketAddr) -> Result<Flight, LocalReply> {
        if head.method == Method::GET && head.uri.path() == HEALTH {
            return Err(healthy());
        }
        let named = hosts::of(&head.headers, header::DATA_PARALLEL);
        let engine = self.engine(&named);
        let Some(api) = Api::of(head) else {
            return Ok(Flight::straight(Arc::clone(&self.shared), engine));
        };
        if self.shared.pod.is_some_and(|pod| is_astray(head, pod)) {
            return Ok(self.stray(head, engine));
        }
        let mut prefillers = hosts::of(&head.headers, header::PREFILLER);
        if self.shared.samples && prefillers.len() > 1 {
            let first = fastrand::usize(..prefillers.len());
            prefillers.rotate_left(first);
        }
        if prefillers.first().is_some_and(|first| !self.may_ask(first)) {
            tracing::warn!(
                host = prefillers[0],
                "a prefill engine was named that is none of the pool's"
            );
            return Err(forbidden());
        }
        prefillers.retain(|host| self.may_ask(host));
        let encoders = match self.shared.embeddings {
            // Other APIs have no media that an encode engine would take.
            Some(connector) if api == Api::ChatCompletions => {
                let mut hosts = hosts::of(&head.headers, header::ENCODERS);
                hosts.retain(|host| self.may_ask(host));
                Some((connector, hosts))
            }
            _ => None,
        };
        let source = hosts::of(&head.headers, header::KV_CACHE_SOURCE)
            .into_iter()
            .next();
        let source =
            source.filter(|source| self.can_pull_from(source, prefillers.is_empty()) && self.may_ask(source));
        let next_turn = NextTurn::begin(&self.shared, &head.headers, api, engine, prefillers.first());
        let legs = Legs {
            api,
            prefillers,
            source,
            encoders: encoders.filter(|(_, hosts)| !hosts.is_empty()),
        };
        let flight = Flight::new(Arc::clone(&self.shared), engine, head, legs);
        Ok(flight.chunked(self.chunker(api, engine)).before(next_turn))
    }
}

/// Whether the picker sent this request to other pods than `pod`. A proxy that finds none of them takes any other.
fn is_astray(head: &request::Parts, pod: IpAddr) -> bool {
    let destinations = hosts::of(&head.headers, header::DESTINATION);
    let addresses: Option<Vec<SocketAddr>> = destinations.iter().map(|host| host.parse().ok()).collect();
    addresses.is_some_and(|all| !all.is_empty() && all.iter().all(|address| address.ip() != pod))
}

/// Says that the sidecar itself serves; the engine has a probe of its own.
fn healthy() -> LocalReply {
    LocalReply {
        status: StatusCode::OK,
        headers: Vec::new(),
        body: Bytes::new(),
    }
}

/// Upstream's words.
fn forbidden() -> LocalReply {
    LocalReply {
        status: StatusCode::FORBIDDEN,
        headers: Vec::new(),
        body: Bytes::from_static(b"Forbidden: prefill target not allowed by SSRF protection\n"),
    }
    .with_header(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    )
}

/// Takes away what was said to the sidecar alone, and names the request for both legs.
pub(crate) fn prepare(head: &mut request::Parts) {
    for name in [
        header::PREFILLER,
        header::DATA_PARALLEL,
        header::ENCODERS,
        header::KV_CACHE_SOURCE,
        next_turn::HEADER,
    ] {
        head.headers.remove(name);
    }
    let id = HeaderName::from_static(header::REQUEST_ID);
    head.headers.entry(id).or_insert_with(|| {
        let id = uuid::Uuid::new_v4().to_string();
        // Digits and hyphens are valid in a header.
        HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("unknown"))
    });
}
