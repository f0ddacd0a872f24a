//! What scheduling gives back, and what it holds until the response is done.

use std::sync::Arc;
use std::time::Instant;

use llmd_epp_api::plugin::SchedulingResult;
use llmd_epp_api::{
    Endpoint, Metadata, RequestChanges, ResponseEnd, ResponseHead, ResponseHook, Snapshot, Termination,
};

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
    /// What plugins change about the request; its hooks are the decision's.
    pub changes: RequestChanges,
    hooks: Vec<Box<dyn ResponseHook>>,
    saw_first_chunk: bool,
}

impl Decision {
    pub(super) fn new(
        snapshot: &Snapshot,
        result: SchedulingResult<'_>,
        mut changes: RequestChanges,
        mut hooks: Vec<Box<dyn ResponseHook>>,
    ) -> Self {
        hooks.append(&mut changes.hooks);
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
            changes,
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

    /// The response's head arrived; returns headers for the client.
    pub fn on_headers(&mut self, head: &ResponseHead<'_>) -> Vec<(Arc<str>, String)> {
        let mut set = Vec::new();
        for hook in &mut self.hooks {
            hook.on_headers(head, &mut set);
        }
        set
    }

    /// A chunk that is not empty arrived.
    pub fn on_chunk(&mut self, now: Instant, bytes: usize) {
        for hook in &mut self.hooks {
            hook.on_chunk(now, bytes);
        }
    }

    /// The response ended; gives back what is left and returns metadata for the proxy. Later calls do
    /// nothing.
    pub fn on_complete(&mut self, now: Instant, end: &ResponseEnd) -> Vec<Metadata> {
        let mut metadata = Vec::new();
        for mut hook in self.hooks.drain(..) {
            hook.on_complete(now, end, &mut metadata);
        }
        metadata
    }

    /// The exchange ended any other way; gives back what is left.
    pub fn on_aborted(&mut self, now: Instant, cause: Termination) {
        for mut hook in self.hooks.drain(..) {
            hook.on_aborted(now, cause);
        }
    }
}
