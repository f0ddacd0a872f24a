//! The answer on its way to the client: shown to the flight chunk by chunk, never buffered whole.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{Response, StatusCode, response};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;

use crate::body::{TargetBody, WholeBody};
use crate::events::WholeEvents;
use crate::exchange::Shared;
use crate::reply::error_json;
use crate::route::{Flight, Outcome, Route, Tracked};

/// An answer whose head and first chunk are here.
pub(crate) struct Started {
    pub(crate) head: response::Parts,
    pub(crate) first: Option<Frame<Bytes>>,
    pub(crate) body: Incoming,
    pub(crate) sender: SendRequest<TargetBody>,
    pub(crate) target: SocketAddr,
}

/// Why the connection to the client is cut: a shorter body must not look like a whole one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RelayError {
    #[error("the target broke off its answer: {0}")]
    Target(#[from] hyper::Error),
    #[error("the target paused its answer for too long")]
    Idle,
}

/// Body of a response: one of our own, or a target's.
pub(crate) enum Relay<R: Route> {
    Whole(WholeBody),
    Target(Box<FromTarget<R>>),
}

pub(crate) struct FromTarget<R: Route> {
    body: Incoming,
    sender: Option<SendRequest<TargetBody>>,
    target: SocketAddr,
    tracked: Tracked<R::Flight>,
    shared: Arc<Shared<R>>,
    /// Chunks ready for the client; bounded by what the flight makes of one chunk.
    ready: VecDeque<Bytes>,
    scratch: Vec<Bytes>,
    /// Keeps events whole; `None` when the answer is no event stream.
    events: Option<WholeEvents>,
    finished: bool,
    idle: Pin<Box<Sleep>>,
    last_chunk: Instant,
    _permit: OwnedSemaphorePermit,
}

impl<R: Route> From<Bytes> for Relay<R> {
    fn from(bytes: Bytes) -> Self {
        Self::Whole(bytes.into())
    }
}

impl<R: Route> Relay<R> {
    pub(crate) fn respond(
        started: Started,
        mut tracked: Tracked<R::Flight>,
        shared: Arc<Shared<R>>,
        permit: OwnedSemaphorePermit,
    ) -> Response<Self> {
        let Started {
            mut head,
            first,
            body,
            sender,
            target,
        } = started;
        tracked.flight().on_response_head(&mut head);
        let event_stream = head
            .headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.contains("text/event-stream"));
        if event_stream {
            // An error event may have to be added, so the length must stay open.
            head.headers.remove(CONTENT_LENGTH);
        }
        let idle = Box::pin(tokio::time::sleep(shared.limits.response_idle));
        let mut relay = FromTarget {
            body,
            sender: Some(sender),
            target,
            tracked,
            shared,
            ready: VecDeque::new(),
            scratch: Vec::new(),
            events: event_stream.then(WholeEvents::default),
            finished: false,
            idle,
            last_chunk: Instant::now(),
            _permit: permit,
        };
        match first.map(Frame::into_data) {
            Some(Ok(chunk)) => relay.take(chunk),
            _ => relay.complete(),
        }
        Response::from_parts(head, Self::Target(Box::new(relay)))
    }
}

impl<R: Route> FromTarget<R> {
    fn accept(&mut self, chunk: Bytes, end: bool) {
        self.tracked
            .flight()
            .on_response_chunk(chunk, end, &mut self.scratch);
        for piece in self.scratch.drain(..).filter(|piece| !piece.is_empty()) {
            match &mut self.events {
                Some(events) => events.push(&piece, &mut self.ready),
                None => self.ready.push_back(piece),
            }
        }
        if let Some(events) = self.events.as_mut().filter(|_| end) {
            events.finish(&mut self.ready);
        }
    }

    fn take(&mut self, chunk: Bytes) {
        self.accept(chunk, false);
        // With a known length hyper asks no further after the last byte: the end is now.
        if self.body.is_end_stream() {
            self.complete();
        }
    }

    fn complete(&mut self) {
        self.accept(Bytes::new(), true);
        self.finished = true;
        self.tracked.end(Outcome::Complete);
        if let Some(sender) = self.sender.take() {
            self.shared.pool.put(self.target, sender);
        }
    }

    /// The answer broke off. An event stream ends with an error event that clients raise; for any
    /// other body the returned error makes hyper cut the connection.
    fn fail(&mut self, error: RelayError) -> Result<(), RelayError> {
        tracing::warn!(target = %self.target, %error, "answer broke off");
        self.finished = true;
        self.sender = None;
        self.tracked.end(Outcome::TargetFailed);
        if self.events.is_none() {
            return Err(error);
        }
        let message = format!("the answer broke off: {} failed", self.target);
        let error = error_json(StatusCode::BAD_GATEWAY, &message);
        self.ready
            .push_back([b"data: ", &error[..], b"\n\n"].concat().into());
        Ok(())
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // The timer is moved only when it fires: moving it for each chunk would cost a lock.
        while self.idle.as_mut().poll(cx).is_ready() {
            let until = self.last_chunk + self.shared.limits.response_idle;
            if Instant::now() >= until {
                return Poll::Ready(());
            }
            self.idle.as_mut().reset(until.into());
        }
        Poll::Pending
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, RelayError>>> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            if self.finished {
                return Poll::Ready(None);
            }
            let failed = match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.last_chunk = Instant::now();
                    // Trailers of an HTTP/1.1 answer carry nothing that our clients read.
                    if let Ok(chunk) = frame.into_data() {
                        self.take(chunk);
                    }
                    continue;
                }
                Poll::Ready(None) => {
                    self.complete();
                    continue;
                }
                Poll::Ready(Some(Err(error))) => RelayError::Target(error),
                Poll::Pending => match self.poll_idle(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(()) => RelayError::Idle,
                },
            };
            if let Err(error) = self.fail(failed) {
                return Poll::Ready(Some(Err(error)));
            }
        }
    }
}

impl<R: Route> Body for Relay<R> {
    type Data = Bytes;
    type Error = RelayError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RelayError>>> {
        match &mut *self {
            Self::Whole(body) => Pin::new(body)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(|never| match never {}))),
            Self::Target(relay) => relay.poll_next(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Target(relay) => relay.finished && relay.ready.is_empty(),
        }
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Target(_) => http_body::SizeHint::default(),
        }
    }
}
