//! What the exchange needs from a scheduler; the state machine is proven against a small one.

use std::sync::Arc;
use std::time::Instant;

use llmd_epp_api::{Endpoint, InferenceRequest, Rejection, Snapshot};
use llmd_openai::Usage;

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
    /// The reservation and its hooks.
    pub held: Box<dyn Held>,
}

/// The load of one routed request. Dropping it gives back whatever is still held, exactly once.
pub trait Held: Send {
    /// The response's first byte arrived.
    fn on_first_chunk(&mut self, now: Instant);
    /// The response is complete.
    fn on_complete(&mut self, now: Instant, usage: Usage);
    /// Target and score of every endpoint the primary profile rated.
    fn scores(&self) -> Vec<(Arc<str>, f64)>;
}

/// Picks endpoints and reserves load in one step.
pub trait Select: Send + Sync {
    /// Picks among `candidates` (indices into `snapshot`; `None` means all).
    fn select(
        &self,
        now: Instant,
        request: &InferenceRequest,
        snapshot: &Snapshot,
        candidates: Option<&[u32]>,
    ) -> Result<Selection, Rejection>;
}
