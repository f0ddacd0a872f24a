//! One request on its way to the decode engine.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{StatusCode, request, response};
use llmd_openai::CachedTokens;
use llmd_proxy::{BodyMode, Flight as Forwarded, LocalReply, Outcome, Plan, Resumption, Review};
use tracing::Span;

use crate::chunked;
use crate::connector::Connector;
use crate::connector::shared_storage::{self, Beginning};
use crate::error;
use crate::legs::beside::{self, Begun, Beside};
use crate::legs::encode::{self, EncodeError};
use crate::legs::serial::{self, Decode};
use crate::legs::{Legs, bad_body, hold_to, request_id};
use crate::next_turn::NextTurn;
use crate::route::{Shared, prepare};
use crate::spans::Trace;

pub(crate) struct Flight {
    shared: Arc<Shared>,
    engine: SocketAddr,
    legs: Option<Legs>,
    /// Who asks the engine for parts of the answer, where it may be cut.
    chunker: Option<(SocketAddr, u64)>,
    stage: Stage,
    /// Prepared when this chat is over.
    next_turn: Option<NextTurn>,
    /// Corrects the decode engine's count, which takes the blocks that it read for cached ones.
    cached: Option<CachedTokens>,
    /// `None` where nobody exports spans.
    trace: Option<Trace>,
}

/// What the decode leg that runs is.
enum Stage {
    /// Nothing more is known of it.
    Plain,
    /// A prefill leg runs beside it.
    Beside(Box<Beside>),
    /// The engine may refuse it, and then these legs follow.
    Tried(Box<Tried>),
}

struct Tried {
    head: request::Parts,
    body: Vec<Bytes>,
    legs: Legs,
}

impl Flight {
    /// To the decode engine by way of `legs`.
    pub(crate) fn new(shared: Arc<Shared>, engine: SocketAddr, head: &request::Parts, legs: Legs) -> Self {
        let trace = shared.traces.then(|| Trace::begin(&shared, head, &legs));
        Self {
            trace,
            legs: Some(legs).filter(|legs| !legs.is_empty()),
            ..Self::straight(shared, engine)
        }
    }

    /// Its answer is asked for in parts, if it can be cut: by the chunker at this address, of so many tokens.
    pub(crate) fn chunked(mut self, chunker: Option<(SocketAddr, u64)>) -> Self {
        self.chunker = chunker;
        self
    }

    /// The turn that follows is prepared.
    pub(crate) fn before(mut self, next_turn: Option<NextTurn>) -> Self {
        self.next_turn = next_turn;
        self
    }

    /// To the decode engine at once.
    pub(crate) fn straight(shared: Arc<Shared>, engine: SocketAddr) -> Self {
        Self {
            shared,
            engine,
            legs: None,
            chunker: None,
            stage: Stage::Plain,
            next_turn: None,
            cached: None,
            trace: None,
        }
    }

    /// Runs what comes before the decode leg and gives its body.
    async fn run(
        &mut self,
        head: &mut request::Parts,
        mut body: Vec<Bytes>,
        legs: Legs,
    ) -> Result<Vec<Bytes>, LocalReply> {
        if let Some((connector, hosts)) = &legs.encoders {
            let encoded = encode::run(&self.shared.callers.encode, *connector, head, body, hosts).await;
            body = encoded.map_err(|error| {
                let status = match error {
                    EncodeError::Body(_) => StatusCode::BAD_REQUEST,
                    EncodeError::Failed { .. } => StatusCode::BAD_GATEWAY,
                };
                error::reply(status, &error.to_string())
            })?;
        }
        if legs.prefillers.is_empty() {
            return match &legs.source {
                Some(source) => self
                    .shared
                    .peers
                    .pulling(&body, source)
                    .map_err(|error| bad_body(&error)),
                None => Ok(body),
            };
        }
        match &self.shared.connector {
            connector if connector.is_concurrent() => {
                if let Connector::Moriio(moriio) = connector {
                    let rank = moriio.rank(request_id(head));
                    hold_to(head, moriio.rank_header(rank).as_deref());
                }
                let begun =
                    beside::begin(Arc::clone(&self.shared), head.clone(), body, legs, self.root()).await?;
                Ok(self.begun(begun))
            }
            Connector::SharedStorage if shared_storage::decodes_first(&body) => {
                let (head, body) = (head.clone(), body);
                let first = body.clone();
                self.stage = Stage::Tried(Box::new(Tried { head, body, legs }));
                Ok(first)
            }
            _ => {
                let began = Instant::now();
                let decode = serial::run(&self.shared, head, &body, &legs, &self.root()).await?;
                if let Some(trace) = &mut self.trace {
                    trace.prefilled(began);
                }
                hold_to(head, decode.rank.as_deref());
                Ok(self.decodes(decode))
            }
        }
    }

    fn root(&self) -> Span {
        self.trace
            .as_ref()
            .map_or_else(Span::none, |trace| trace.root.clone())
    }

    fn begun(&mut self, begun: Begun) -> Vec<Bytes> {
        match begun {
            Begun::Pair(beside, body) => {
                self.stage = Stage::Beside(beside);
                body
            }
            Begun::Alone(body) => {
                self.stage = Stage::Plain;
                body
            }
        }
    }

    fn decodes(&mut self, decode: Decode) -> Vec<Bytes> {
        self.cached = decode.cached;
        decode.body
    }

    fn plan_of(&self, body: Vec<Bytes>) -> Plan {
        Plan {
            target: self.engine,
            body,
        }
    }
}

impl Forwarded for Flight {
    fn body_mode(&self) -> BodyMode {
        if self.legs.is_some() || self.chunker.is_some() || self.next_turn.is_some() {
            BodyMode::Buffer
        } else {
            BodyMode::Stream
        }
    }

    fn on_request_chunk(&mut self, _: &Bytes) -> Result<(), LocalReply> {
        Ok(())
    }

    async fn plan(&mut self, head: &mut request::Parts, body: Vec<Bytes>) -> Result<Plan, LocalReply> {
        prepare(head);
        if let Some(next_turn) = &mut self.next_turn {
            next_turn.asked(head, &body);
        }
        let body = match self.legs.take() {
            Some(legs) => self.run(head, body, legs).await?,
            None => body,
        };
        if let Some((chunker, tokens)) = self.chunker
            && chunked::applies(&body, tokens)
        {
            self.engine = chunker;
        }
        if let Some(trace) = &mut self.trace {
            trace.decodes(&self.shared.connector, head, self.engine);
        }
        Ok(self.plan_of(body))
    }

    async fn meanwhile(&mut self) -> Result<Plan, LocalReply> {
        let Stage::Beside(beside) = &mut self.stage else {
            return std::future::pending().await;
        };
        if let Some(begun) = beside.outcome().await? {
            let body = self.begun(begun);
            return Ok(self.plan_of(body));
        }
        self.stage = Stage::Plain;
        std::future::pending().await
    }

    async fn review(&mut self, head: &response::Parts, beginning: &[u8]) -> Result<Review, LocalReply> {
        match &mut self.stage {
            Stage::Plain => Ok(Review::Pass),
            Stage::Beside(beside) => match beside.confirmed().await? {
                Some(begun) => {
                    let body = self.begun(begun);
                    Ok(Review::Instead(self.plan_of(body)))
                }
                None => Ok(Review::Pass),
            },
            Stage::Tried(_) if !head.status.is_success() => Ok(Review::Pass),
            Stage::Tried(tried) => match shared_storage::beginning(is_event_stream(head), beginning) {
                Beginning::Open => Ok(Review::More),
                Beginning::Generates => Ok(Review::Pass),
                Beginning::Refused => {
                    let Tried { head, body, legs } = &**tried;
                    let root = self
                        .trace
                        .as_ref()
                        .map_or_else(Span::none, |trace| trace.root.clone());
                    let decode = serial::run(&self.shared, head, body, legs, &root).await?;
                    self.stage = Stage::Plain;
                    let body = self.decodes(decode);
                    Ok(Review::Instead(self.plan_of(body)))
                }
            },
        }
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
        if let Some(trace) = &self.trace {
            trace.answers(is_event_stream(head));
        }
        if !head.status.is_success() {
            // Nobody reads the blocks of a leg that runs still.
            self.stage = Stage::Plain;
            self.next_turn = None;
        }
    }

    fn on_response_chunk(&mut self, chunk: Bytes, end: bool, out: &mut Vec<Bytes>) {
        if self
            .next_turn
            .as_mut()
            .is_some_and(|next_turn| !next_turn.answered(&chunk))
        {
            self.next_turn = None;
        }
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

    fn on_end(&mut self, outcome: Outcome) {
        if let Some(trace) = &self.trace {
            trace.end();
        }
        let stage = std::mem::replace(&mut self.stage, Stage::Plain);
        if outcome != Outcome::Complete {
            return;
        }
        if let Stage::Beside(beside) = stage {
            beside.detach();
        }
        if let Some(next_turn) = self.next_turn.take() {
            next_turn.prepare();
        }
    }
}

fn is_event_stream(head: &response::Parts) -> bool {
    let kind = head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.contains("text/event-stream"))
}
