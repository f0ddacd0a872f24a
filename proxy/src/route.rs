//! What the forwarder asks of its caller: where a request goes, and what to see of the answer.

use std::future::Future;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{request, response};

use crate::reply::LocalReply;

/// Whether a request body is held until the target is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyMode {
    /// Hold the whole body, then plan. The request can be sent again to another target.
    Buffer,
    /// Plan on the head alone and stream the body through, unseen; only a failed connect is retried. One that says that
    /// it is small is held all the same, and can be sent again.
    Stream,
}

/// Where a request goes.
#[derive(Debug)]
pub struct Plan {
    /// Address of the target.
    pub target: SocketAddr,
    /// The body to send, in pieces; empty with [`BodyMode::Stream`].
    pub body: Vec<Bytes>,
}

/// How an answer whose target died on the way goes on.
#[derive(Debug)]
pub enum Resumption {
    /// Another target sends the rest.
    Send(Plan),
    /// Nothing is missing but these last bytes.
    Complete(Bytes),
}

/// What becomes of an answer that began.
#[derive(Debug)]
pub enum Review {
    /// The client gets it.
    Pass,
    /// More of it is needed to tell.
    More,
    /// It is dropped, and another request is sent.
    Instead(Plan),
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The whole answer was handed to the client's connection.
    Complete,
    /// The client went away first.
    ClientGone,
    /// No target answered, or the answer broke off.
    TargetFailed,
    /// Answered by the forwarder or by the flight itself.
    Rejected,
}

/// Decides what happens to requests. Shared by all connections.
pub trait Route: Clone + Send + Sync + 'static {
    /// State of one request.
    type Flight: Flight;

    /// A request head arrived.
    ///
    /// # Errors
    /// The reply that is sent instead of forwarding.
    fn begin(&self, head: &request::Parts, peer: SocketAddr) -> Result<Self::Flight, LocalReply>;
}

/// One request on its way. [`Flight::on_end`] is called exactly once, whatever happens.
pub trait Flight: Send + Sized + 'static {
    /// Whether the body is needed before the target is known.
    fn body_mode(&self) -> BodyMode {
        BodyMode::Buffer
    }

    /// A chunk of the request body arrived ([`BodyMode::Buffer`] only).
    ///
    /// # Errors
    /// The reply that ends the request.
    fn on_request_chunk(&mut self, chunk: &Bytes) -> Result<(), LocalReply>;

    /// The body is complete: choose the target. `head` is what will be sent; hop-by-hop headers
    /// are gone already.
    ///
    /// # Errors
    /// The reply that is sent instead of forwarding.
    fn plan(
        &mut self,
        head: &mut request::Parts,
        body: Vec<Bytes>,
    ) -> impl Future<Output = Result<Plan, LocalReply>> + Send;

    /// Runs while an answer to a held request is waited for. A plan that it gives replaces the request, which is cut;
    /// at most sixteen times, reviews included. Dropped and called anew at any point where it waits.
    ///
    /// # Errors
    /// The reply that ends the request.
    fn meanwhile(&mut self) -> impl Future<Output = Result<Plan, LocalReply>> + Send {
        std::future::pending()
    }

    /// An answer to a held request began: `beginning` is its first chunk, after [`Review::More`] its first ones, no
    /// more than 64 KiB.
    ///
    /// # Errors
    /// The reply that is sent instead of it.
    fn review(
        &mut self,
        head: &response::Parts,
        beginning: &[u8],
    ) -> impl Future<Output = Result<Review, LocalReply>> + Send {
        let _ = (head, beginning);
        std::future::ready(Ok(Review::Pass))
    }

    /// `failed` could not be reached, or broke before the first byte of its answer. Returns the
    /// next target, or `None` to give up with 502. `head` is what was sent; headers that name the
    /// target are set anew here.
    fn replan(
        &mut self,
        failed: SocketAddr,
        head: &mut request::Parts,
    ) -> impl Future<Output = Option<SocketAddr>> + Send;

    /// `failed` broke off an event stream of which the client has the beginning. What had arrived of an
    /// unfinished event is dropped. Returns how the stream goes on, or `None` to end it with an error
    /// event; `head` is what was sent. The head of the rest is not shown to the flight, its chunks are.
    fn resume(
        &mut self,
        failed: SocketAddr,
        head: &mut request::Parts,
    ) -> impl Future<Output = Option<Resumption>> + Send;

    /// The head of the answer, about to be sent. Remove `content-length` if chunks will change size.
    fn on_response_head(&mut self, head: &mut response::Parts);

    /// A chunk of the answer; what is pushed to `out` goes to the client. The last call has
    /// `end` set and may carry an empty chunk.
    fn on_response_chunk(&mut self, chunk: Bytes, end: bool, out: &mut Vec<Bytes>);

    /// No target answered, `cause` says why of the last one. The reply instead of the forwarder's 502.
    fn no_target(&self, cause: &str) -> Option<LocalReply> {
        let _ = cause;
        None
    }

    /// The request is over.
    fn on_end(&mut self, outcome: Outcome);
}

/// Calls [`Flight::on_end`] exactly once, also when the request's task is dropped.
pub(crate) struct Tracked<F: Flight> {
    flight: F,
    ended: bool,
}

impl<F: Flight> Tracked<F> {
    pub(crate) fn new(flight: F) -> Self {
        Self { flight, ended: false }
    }

    pub(crate) fn flight(&mut self) -> &mut F {
        &mut self.flight
    }

    pub(crate) fn end(&mut self, outcome: Outcome) {
        if !std::mem::replace(&mut self.ended, true) {
            self.flight.on_end(outcome);
        }
    }
}

impl<F: Flight> Drop for Tracked<F> {
    fn drop(&mut self) {
        // Nobody said how the request ended: hyper dropped it because the client went away.
        self.end(Outcome::ClientGone);
    }
}
