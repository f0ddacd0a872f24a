//! The scheduler behind an exchange.

use std::sync::Arc;
use std::time::Instant;

use llmd_epp_api::{InferenceRequest, Rejection, Snapshot};
use llmd_openai::Usage;

use super::{Decision, Scheduler};
use crate::exchange::{HeaderChange, Held, Select, Selection};

impl Select for Scheduler {
    fn select(
        &self,
        now: Instant,
        request: &InferenceRequest,
        snapshot: &Snapshot,
        candidates: Option<&[u32]>,
    ) -> Result<Selection, Rejection> {
        let mut decision = self.schedule(now, request, snapshot, candidates)?;
        let headers = std::mem::take(&mut decision.headers).into_iter();
        Ok(Selection {
            endpoints: decision.endpoints.clone(),
            set_headers: headers
                .map(|(name, value)| HeaderChange {
                    name,
                    value: value.into(),
                })
                .collect(),
            held: Box::new(decision),
        })
    }
}

impl Held for Decision {
    fn on_first_chunk(&mut self, now: Instant) {
        Decision::on_first_chunk(self, now);
    }

    fn on_complete(&mut self, now: Instant, _usage: Usage) {
        // No hook of this build reads usage; the request metrics do.
        Decision::on_complete(self, now);
    }

    fn scores(&self) -> Vec<(Arc<str>, f64)> {
        let scored = Decision::scores(self).iter();
        scored
            .map(|(endpoint, score)| (Arc::clone(endpoint.target()), *score))
            .collect()
    }
}
