//! What the exchange needs from a scheduler; the state machine is proven against a small one.

use std::sync::Arc;
use std::time::Instant;

use llmd_epp_api::{
    Endpoint, InferenceRequest, Metadata, Rejection, RenderBackend, ResponseEnd, ResponseHead, Snapshot,
    Termination, TypedName,
};

/// A header that is set on the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderChange {
    /// Lower-case name.
    pub name: Arc<str>,
    /// Value; visible ASCII.
    pub value: Arc<str>,
}

/// A pick and the load it reserved.
pub struct Selection {
    /// Endpoints of the primary profile, best first.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// Headers that plugins set.
    pub set_headers: Vec<HeaderChange>,
    /// Client headers that plugins remove, in lower case.
    pub remove_headers: Vec<Arc<str>>,
    /// Takes the place of the endpoints as the destination.
    pub destination: Option<Arc<str>>,
    /// Dynamic metadata for the proxy.
    pub metadata: Vec<Metadata>,
    /// The reservation and its hooks.
    pub held: Box<dyn Held>,
}

impl Selection {
    /// A pick that changes nothing else about the request.
    pub fn new(endpoints: Vec<Arc<Endpoint>>, held: Box<dyn Held>) -> Self {
        Self {
            endpoints,
            set_headers: Vec::new(),
            remove_headers: Vec::new(),
            destination: None,
            metadata: Vec::new(),
            held,
        }
    }
}

/// The load of one routed request. Dropping it gives back whatever is still held, exactly once.
pub trait Held: Send {
    /// The response's head arrived; returns headers for the client.
    fn on_headers(&mut self, _head: &ResponseHead<'_>) -> Vec<HeaderChange> {
        Vec::new()
    }
    /// The response's first byte arrived.
    fn on_first_chunk(&mut self, now: Instant);
    /// A chunk that is not empty arrived.
    fn on_chunk(&mut self, _now: Instant, _bytes: usize) {}
    /// The response is complete; returns metadata for the proxy.
    fn on_complete(&mut self, now: Instant, end: &ResponseEnd) -> Vec<Metadata>;
    /// The exchange ended any other way.
    fn on_aborted(&mut self, _now: Instant, _cause: Termination) {}
    /// Target and score of every endpoint the primary profile rated.
    fn scores(&self) -> Vec<(Arc<str>, f64)>;
}

/// Picks endpoints and reserves load in one step.
pub trait Select: Send + Sync {
    /// Lets plugins look at the headers, before the request's flow and priority are used.
    ///
    /// # Errors
    /// A plugin refuses the request.
    fn prepare(&self, _request: &mut InferenceRequest) -> Result<(), Rejection> {
        Ok(())
    }

    /// Whether any plugin lets requests wait for others.
    fn gathers(&self) -> bool {
        false
    }

    /// Lets the request wait for others before it is selected for; returns until when.
    fn gather(
        &self,
        _now: Instant,
        _request: &mut InferenceRequest,
        _snapshot: &Snapshot,
    ) -> Option<Instant> {
        None
    }

    /// The engine that is asked for the tokens of prompts before requests are selected for.
    fn render_backend(&self) -> Option<Arc<RenderBackend>> {
        None
    }

    /// What plugins hold, by instance, for debug pages; `None` for one that does not show it.
    fn state(&self) -> Vec<(TypedName, Option<serde_json::Value>)> {
        Vec::new()
    }

    /// Picks among `candidates` (indices into `snapshot`; `None` means all).
    fn select(
        &self,
        now: Instant,
        request: &InferenceRequest,
        snapshot: &Snapshot,
        candidates: Option<&[u32]>,
    ) -> Result<Selection, Rejection>;
}
