//! This process remembers the endpoint of each session.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use llmd_epp_api::plugin::{EndpointObserver, Reserve, SchedulingResult};
use llmd_epp_api::{AttributeKey, Cycle, ResponseHook, SessionId, SlotId};
use rustc_hash::FxHashMap;

use super::Affinity;
use super::token::bound_run;

/// Clients name sessions: beyond this many at once, some 10 MB, new ones are not bound.
const MOST_SESSIONS: usize = 1 << 18;

/// What names a session.
#[derive(Debug)]
pub(super) enum Source {
    /// By its lower-case name.
    Header(String),
    Attribute(AttributeKey<SessionId>),
}

#[derive(Clone, Copy, Debug)]
struct Binding {
    slot: SlotId,
    used: Instant,
}

#[derive(Debug, Default)]
struct State {
    /// By a keyed hash of the session's name, which may be long.
    bindings: FxHashMap<u64, Binding>,
    swept: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Sessions {
    sources: Vec<Source>,
    profile: Option<String>,
    ttl: Duration,
    sweep: Duration,
    hasher: RandomState,
    state: Mutex<State>,
}

impl Sessions {
    pub(super) fn new(sources: Vec<Source>, profile: Option<String>, ttl: Duration, sweep: Duration) -> Self {
        Self {
            sources,
            profile,
            ttl,
            sweep,
            hasher: RandomState::new(),
            state: Mutex::default(),
        }
    }

    fn key(&self, cycle: &Cycle<'_>) -> Option<u64> {
        let mut named = self.sources.iter().filter_map(|source| match source {
            Source::Header(name) => cycle.request.headers.get(name),
            Source::Attribute(key) => cycle.attributes.get(*key).map(|session| &*session.value),
        });
        let session = named.find(|session| !session.is_empty())?;
        Some(self.hasher.hash_one(session))
    }

    fn is_alive(&self, binding: Binding, now: Instant) -> bool {
        now.saturating_duration_since(binding.used) <= self.ttl
    }
}

impl Affinity for Sessions {
    fn bound(&self, cycle: &Cycle<'_>, candidates: &[u32]) -> Option<u32> {
        let key = self.key(cycle)?;
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let binding = *state.bindings.get(&key)?;
        drop(state);
        if !self.is_alive(binding, cycle.now) {
            return None;
        }
        let mut candidates = candidates.iter().copied();
        candidates.find(|index| cycle.snapshot.slot_ids[*index as usize] == binding.slot)
    }
}

/// Under the pool's lock: of two first requests of a session at once the later one sees the binding.
impl Reserve for Sessions {
    fn reserve(&self, cycle: &Cycle<'_>, result: SchedulingResult<'_>, _: &mut Vec<Box<dyn ResponseHook>>) {
        let Some(key) = self.key(cycle) else {
            return;
        };
        let run = bound_run(self.profile.as_deref(), result);
        let Some(picked) = run.and_then(|run| result.runs[run].picked.first()) else {
            return;
        };
        let slot = cycle.snapshot.slot_ids[*picked as usize];
        let now = cycle.now;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = |swept: Instant| now.saturating_duration_since(swept) >= self.sweep;
        if state.swept.is_none_or(is_due) {
            state.swept = Some(now);
            state.bindings.retain(|_, binding| self.is_alive(*binding, now));
        }
        let bound = state.bindings.get(&key).copied();
        let kept = bound
            .filter(|binding| self.is_alive(*binding, now) && cycle.snapshot.slot_ids.contains(&binding.slot))
            .map_or(slot, |binding| binding.slot);
        if bound.is_some() || state.bindings.len() < MOST_SESSIONS {
            let binding = Binding {
                slot: kept,
                used: now,
            };
            state.bindings.insert(key, binding);
        }
    }
}

impl EndpointObserver for Sessions {
    fn retain(&self, live: &[SlotId]) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state
            .bindings
            .retain(|_, binding| live.binary_search(&binding.slot).is_ok());
    }
}
