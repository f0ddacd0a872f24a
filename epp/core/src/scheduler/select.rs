//! The scheduler behind an exchange.

use std::sync::Arc;
use std::time::Instant;

use llmd_epp_api::{
    InferenceRequest, Metadata, Rejection, RenderBackend, RequestChanges, ResponseEnd, ResponseHead,
    Snapshot, Termination, TypedName,
};

use super::{Decision, Scheduler};
use crate::exchange::{HeaderChange, Held, Select, Selection};

impl Select for Scheduler {
    fn prepare(&self, request: &mut InferenceRequest) -> Result<(), Rejection> {
        Scheduler::prepare(self, request)
    }

    fn gathers(&self) -> bool {
        Scheduler::gathers(self)
    }

    fn gather(&self, now: Instant, request: &mut InferenceRequest, snapshot: &Snapshot) -> Option<Instant> {
        Scheduler::gather(self, now, request, snapshot)
    }

    fn render_backend(&self) -> Option<Arc<RenderBackend>> {
        Scheduler::render_backend(self)
    }

    fn state(&self) -> Vec<(TypedName, Option<serde_json::Value>)> {
        Scheduler::state(self)
    }

    fn select(
        &self,
        now: Instant,
        request: &InferenceRequest,
        snapshot: &Snapshot,
        candidates: Option<&[u32]>,
    ) -> Result<Selection, Rejection> {
        let mut decision = self.schedule(now, request, snapshot, candidates)?;
        let RequestChanges {
            set_headers,
            remove_headers,
            destination,
            metadata,
            hooks: _,
        } = std::mem::take(&mut decision.changes);
        Ok(Selection {
            endpoints: decision.endpoints.clone(),
            set_headers: changes(set_headers),
            remove_headers,
            destination,
            metadata,
            held: Box::new(decision),
        })
    }
}

fn changes(headers: Vec<(Arc<str>, String)>) -> Vec<HeaderChange> {
    let changes = headers.into_iter().map(|(name, value)| HeaderChange {
        name,
        value: value.into(),
    });
    changes.collect()
}

impl Held for Decision {
    fn on_headers(&mut self, head: &ResponseHead<'_>) -> Vec<HeaderChange> {
        changes(Decision::on_headers(self, head))
    }

    fn on_first_chunk(&mut self, now: Instant) {
        Decision::on_first_chunk(self, now);
    }

    fn on_chunk(&mut self, now: Instant, bytes: usize) {
        Decision::on_chunk(self, now, bytes);
    }

    fn on_complete(&mut self, now: Instant, end: &ResponseEnd) -> Vec<Metadata> {
        Decision::on_complete(self, now, end)
    }

    fn on_aborted(&mut self, now: Instant, cause: Termination) {
        Decision::on_aborted(self, now, cause);
    }

    fn scores(&self) -> Vec<(Arc<str>, f64)> {
        let scored = Decision::scores(self).iter();
        scored
            .map(|(endpoint, score)| (Arc::clone(endpoint.target()), *score))
            .collect()
    }
}
