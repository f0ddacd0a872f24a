//! The client carries the endpoint of its session: no state here, and any replica can read it.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use llmd_epp_api::plugin::{PreRequest, SchedulingResult};
use llmd_epp_api::{Cycle, Endpoint, Rejection, RequestChanges, ResponseHead, ResponseHook};

use super::Affinity;

/// Longer ones are not ours: namespace and name have at most 63 and 253 bytes, and a rank.
const LONGEST: usize = 512;

#[derive(Debug)]
pub(super) struct Token {
    /// Lower case.
    header: Arc<str>,
    profile: Option<String>,
}

impl Token {
    pub(super) fn new(header: String, profile: Option<String>) -> Self {
        Self {
            header: header.into(),
            profile,
        }
    }
}

impl Affinity for Token {
    fn bound(&self, cycle: &Cycle<'_>, candidates: &[u32]) -> Option<u32> {
        let token = cycle.request.headers.get(&self.header)?.trim();
        if token.is_empty() || token.len() > LONGEST {
            return None;
        }
        let decoded = STANDARD.decode(token).ok()?;
        let (namespace, name) = std::str::from_utf8(&decoded).ok()?.split_once('/')?;
        let is_named = |index: &u32| {
            let known = cycle.snapshot.endpoints[*index as usize].name();
            *known.namespace == *namespace && *known.name == *name
        };
        candidates.iter().copied().find(is_named)
    }
}

/// Index into the runs of what is bound.
pub(super) fn bound_run(profile: Option<&str>, result: SchedulingResult<'_>) -> Option<usize> {
    match profile {
        None => Some(result.primary),
        Some(wanted) => result
            .runs
            .iter()
            .position(|run| result.profile_name(run) == wanted),
    }
}

impl PreRequest for Token {
    fn pre_request(
        &self,
        cycle: &Cycle<'_>,
        result: SchedulingResult<'_>,
        changes: &mut RequestChanges,
    ) -> Result<(), Rejection> {
        let Some(run) = bound_run(self.profile.as_deref(), result) else {
            return Ok(());
        };
        let picked = result.runs[run].picked.iter();
        let endpoints: Vec<Arc<Endpoint>> = picked
            .map(|index| Arc::clone(&cycle.snapshot.endpoints[*index as usize]))
            .collect();
        if !endpoints.is_empty() {
            changes.hooks.push(Box::new(Answer {
                header: Arc::clone(&self.header),
                endpoints,
            }));
        }
        Ok(())
    }
}

/// Tells the client its endpoint.
#[derive(Debug)]
struct Answer {
    header: Arc<str>,
    /// The chosen one and those that the proxy may fall back to.
    endpoints: Vec<Arc<Endpoint>>,
}

impl ResponseHook for Answer {
    fn on_headers(&mut self, head: &ResponseHead<'_>, set: &mut Vec<(Arc<str>, String)>) {
        let served = self
            .endpoints
            .iter()
            .find(|endpoint| head.served == Some(endpoint.target()));
        if let Some(endpoint) = served.or(self.endpoints.first()) {
            let token = STANDARD.encode(endpoint.name().to_string());
            set.push((Arc::clone(&self.header), token));
        }
    }
}
