//! What scheduling gives back, and what it holds until the response is done.

use std::sync::Arc;
use std::time::Instant;

use llmd_epp_api::plugin::SchedulingResult;
use llmd_epp_api::{Endpoint, ResponseHook, Snapshot};

/// The outcome of one profile.
#[derive(Clone, Debug)]
pub struct ProfileResult {
    /// Name of the profile.
    pub name: Arc<str>,
    /// Chosen endpoints, best first; empty when the profile found none.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// Every endpoint that was scored, with its total; empty unless `--emit-endpoint-scores`.
    pub scores: Vec<(Arc<Endpoint>, f64)>,
}

/// Where a request goes. Holds the load booked for it: whatever is left is given back, exactly
/// once, when the decision is dropped.
#[derive(Debug)]
pub struct Decision {
    /// Endpoints of the primary profile, best first; never empty.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// All profiles in the order they ran.
    pub profiles: Vec<ProfileResult>,
    /// Index into `profiles` of the primary one.
    pub primary: usize,
    /// Request headers to set.
    pub headers: Vec<(Arc<str>, String)>,
    hooks: Vec<Box<dyn ResponseHook>>,
    saw_first_chunk: bool,
}

impl Decision {
    pub(super) fn new(
        snapshot: &Snapshot,
        result: SchedulingResult<'_>,
        headers: Vec<(Arc<str>, String)>,
        hooks: Vec<Box<dyn ResponseHook>>,
    ) -> Self {
        let endpoint = |index: u32| Arc::clone(&snapshot.endpoints[index as usize]);
        let profiles: Vec<ProfileResult> = result
            .runs
            .iter()
            .map(|run| ProfileResult {
                name: Arc::clone(&result.profiles[run.profile]),
                endpoints: run.picked.iter().copied().map(endpoint).collect(),
                scores: run
                    .scored
                    .iter()
                    .map(|(index, score)| (endpoint(*index), *score))
                    .collect(),
            })
            .collect();
        Self {
            endpoints: profiles[result.primary].endpoints.clone(),
            profiles,
            primary: result.primary,
            headers,
            hooks,
            saw_first_chunk: false,
        }
    }

    /// Scores of the primary profile; empty unless scores are retained.
    pub fn scores(&self) -> &[(Arc<Endpoint>, f64)] {
        &self.profiles[self.primary].scores
    }

    /// The first response chunk arrived; later calls do nothing.
    pub fn on_first_chunk(&mut self, now: Instant) {
        if std::mem::replace(&mut self.saw_first_chunk, true) {
            return;
        }
        for hook in &mut self.hooks {
            hook.on_first_chunk(now);
        }
    }

    /// The response ended; gives back what is left. Later calls do nothing.
    pub fn on_complete(&mut self, now: Instant) {
        for mut hook in self.hooks.drain(..) {
            hook.on_complete(now);
        }
    }
}
