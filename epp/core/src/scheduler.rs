//! One request, one decision: admission, producers, profiles, select-and-reserve.

mod decision;
mod metrics;
mod pair;
mod profile;
mod select;
mod steps;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use llmd_epp_api::attribute::AttributeLayout;
use llmd_epp_api::plugin::{
    Admitter, DataProducer, EndpointObserver, Gather, PreRequest, ProfileHandler, ProfileRun,
    RequestHeaderProcessor, Reserve, SaturationDetector, SchedulingResult, Screener, StateDumper,
};
use llmd_epp_api::{
    AttributeKey, Attributes, Clock, Cycle, ErrorCode, InferenceRequest, MetricsScope, PrefixMatch, Random,
    RejectReason, Rejection, RenderBackend, ResponseHook, SlotId, Snapshot, TypedName,
};

use crate::config::{BuildEnv, ConfigError, EndpointPickerConfig, assemble};
pub use decision::{Decision, ProfileResult};
use metrics::{Attempt, SchedulerMetrics, Stopwatch, Timer};
use profile::ProfileScratch;
pub(crate) use profile::{Profile, ProfileParts};

/// Idle scratch sets kept; more than run at once is waste.
const SCRATCH_KEPT: usize = 64;

/// What a scheduler is made of.
pub(crate) struct Parts {
    pub(crate) profiles: Vec<Profile>,
    pub(crate) handler: Arc<dyn ProfileHandler>,
    pub(crate) saturation: Arc<dyn SaturationDetector>,
    pub(crate) header_processors: Vec<(TypedName, Arc<dyn RequestHeaderProcessor>)>,
    pub(crate) screeners: Vec<(TypedName, Arc<dyn Screener>)>,
    pub(crate) producers: Vec<(TypedName, Arc<dyn DataProducer>)>,
    pub(crate) gatherers: Vec<Arc<dyn Gather>>,
    pub(crate) admitters: Vec<(TypedName, Arc<dyn Admitter>)>,
    pub(crate) render: Option<Arc<RenderBackend>>,
    /// All instances; not every one shows what it holds.
    pub(crate) states: Vec<(TypedName, Option<Arc<dyn StateDumper>>)>,
    pub(crate) reservers: Vec<Arc<dyn Reserve>>,
    pub(crate) pre_requests: Vec<(TypedName, Arc<dyn PreRequest>)>,
    pub(crate) observers: Vec<Arc<dyn EndpointObserver>>,
    pub(crate) prefix_match: Option<AttributeKey<PrefixMatch>>,
    pub(crate) attributes: AttributeLayout,
}

/// Buffers of one scheduling call.
struct Scratch {
    attributes: Attributes,
    candidates: Vec<u32>,
    profile: ProfileScratch,
}

/// The scheduler of one pool. `schedule` may be called from any thread.
pub struct Scheduler {
    profiles: Vec<Profile>,
    profile_names: Vec<Arc<str>>,
    handler: Arc<dyn ProfileHandler>,
    saturation: Arc<dyn SaturationDetector>,
    header_processors: Vec<(Timer, Arc<dyn RequestHeaderProcessor>)>,
    screeners: Vec<(Timer, Arc<dyn Screener>)>,
    producers: Vec<(Timer, Arc<dyn DataProducer>)>,
    gatherers: Vec<Arc<dyn Gather>>,
    admitters: Vec<(Timer, Arc<dyn Admitter>)>,
    render: Option<Arc<RenderBackend>>,
    states: Vec<(TypedName, Option<Arc<dyn StateDumper>>)>,
    reservers: Vec<Arc<dyn Reserve>>,
    pre_requests: Vec<(NamedTimer, Arc<dyn PreRequest>)>,
    observers: Vec<Arc<dyn EndpointObserver>>,
    prefix_match: Option<AttributeKey<PrefixMatch>>,
    attributes: AttributeLayout,
    metrics: Arc<SchedulerMetrics>,
    clock: Option<Arc<dyn Clock>>,
    retain_scores: bool,
    /// The pool's lock: score, pick and reserve are one step, so that each pick sees the load of
    /// the ones before it.
    critical: Mutex<Random>,
    /// Randomness of admission, which runs outside of the pool's lock.
    chance: Mutex<Random>,
    scratch: Mutex<Vec<Scratch>>,
}

impl fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scheduler")
            .field("profiles", &self.profile_names)
            .finish_non_exhaustive()
    }
}

type NamedTimer = (Timer, TypedName);

/// A chosen endpoint per profile, before hooks and headers.
struct Picked {
    runs: Vec<ProfileRun>,
    primary: usize,
    hooks: Vec<Box<dyn ResponseHook>>,
}

impl Scheduler {
    /// Builds the scheduler of a decoded configuration. [`assemble`] also gives the data layer's
    /// and the parsers' part.
    pub fn build(config: &EndpointPickerConfig, env: BuildEnv) -> Result<Self, ConfigError> {
        assemble(config, env).map(|assembly| assembly.scheduler)
    }

    pub(crate) fn new(
        parts: Parts,
        metrics: &MetricsScope,
        env: BuildEnv,
    ) -> Result<Self, prometheus::Error> {
        let Parts {
            mut profiles,
            handler,
            saturation,
            header_processors,
            screeners,
            producers,
            gatherers,
            admitters,
            states,
            render,
            reservers,
            pre_requests,
            observers,
            prefix_match,
            attributes,
        } = parts;
        let metrics = metrics.of(SchedulerMetrics::register)?;
        for profile in &mut profiles {
            profile.time_with(&metrics);
        }
        let profile_names = profiles.iter().map(|profile| profile.name().clone()).collect();
        Ok(Self {
            profiles,
            profile_names,
            handler,
            saturation,
            header_processors: timed(&metrics, "RequestHeader", header_processors),
            screeners: timed(&metrics, "Screener", screeners),
            producers: timed(&metrics, "DataProducer", producers),
            gatherers,
            admitters: timed(&metrics, "Admission", admitters),
            states,
            render,
            reservers,
            pre_requests: pre_requests
                .into_iter()
                .map(|(name, plugin)| ((metrics.timer("PreRequest", &name), name), plugin))
                .collect(),
            observers,
            prefix_match,
            attributes,
            metrics,
            clock: env.clock,
            retain_scores: env.retain_scores,
            critical: Mutex::new(Random::seeded(env.seed)),
            chance: Mutex::new(Random::seeded(env.seed.wrapping_add(1))),
            scratch: Mutex::new(Vec::new()),
        })
    }

    /// Lets plugins look at the headers of a request.
    ///
    /// # Errors
    /// A plugin refuses the request.
    pub fn prepare(&self, request: &mut InferenceRequest) -> Result<(), Rejection> {
        if self.header_processors.is_empty() {
            return Ok(());
        }
        let mut watch = Stopwatch::start(self.clock.as_deref());
        for (timer, processor) in &self.header_processors {
            let outcome = processor.process(request);
            timer.observe(watch.lap());
            outcome?;
        }
        Ok(())
    }

    /// Whether any plugin lets requests wait for others.
    pub fn gathers(&self) -> bool {
        !self.gatherers.is_empty()
    }

    /// Lets the request wait for others; returns until when.
    pub fn gather(
        &self,
        now: Instant,
        request: &mut InferenceRequest,
        snapshot: &Snapshot,
    ) -> Option<Instant> {
        let waits = self.gatherers.iter();
        waits
            .filter_map(|plugin| plugin.gather(now, request, snapshot))
            .max()
    }

    /// The engine that is asked for the tokens of prompts.
    pub fn render_backend(&self) -> Option<Arc<RenderBackend>> {
        self.render.clone()
    }

    /// What plugins hold, by instance; `None` for one that does not show it.
    pub fn state(&self) -> Vec<(TypedName, Option<serde_json::Value>)> {
        let states = self.states.iter();
        states
            .map(|(name, plugin)| (name.clone(), plugin.as_ref().map(|plugin| plugin.dump())))
            .collect()
    }

    /// Decides where `request` goes and books its load, or says why not.
    ///
    /// `subset` restricts the candidates to these indices of `snapshot`. Dropping the decision
    /// gives the load back.
    pub fn schedule(
        &self,
        now: Instant,
        request: &InferenceRequest,
        snapshot: &Snapshot,
        subset: Option<&[u32]>,
    ) -> Result<Decision, Rejection> {
        let mut watch = Stopwatch::start(self.clock.as_deref());
        let mut scratch = self.take_scratch();
        scratch.candidates.clear();
        match subset {
            Some(indices) => {
                let known = indices
                    .iter()
                    .copied()
                    .filter(|index| (*index as usize) < snapshot.len());
                scratch.candidates.extend(known);
            }
            None => scratch.candidates.extend(0..snapshot.len() as u32),
        }
        let outcome = self.decide(now, request, snapshot, &mut scratch, &mut watch);
        self.return_scratch(scratch);
        self.metrics.scheduled(
            &watch,
            request,
            match &outcome {
                Ok(decision) => Attempt::Success(decision.endpoints.first()),
                Err(_) => Attempt::Failure,
            },
        );
        outcome
    }

    fn decide(
        &self,
        now: Instant,
        request: &InferenceRequest,
        snapshot: &Snapshot,
        scratch: &mut Scratch,
        watch: &mut Stopwatch<'_>,
    ) -> Result<Decision, Rejection> {
        if scratch.candidates.is_empty() {
            // Also for sheddable requests: 503 says that there is no capacity, 429 that it is contended.
            return Err(Rejection::new(
                ErrorCode::ServiceUnavailable,
                "failed to find endpoint candidates for serving the request",
            )
            .because(RejectReason::NoEndpoints));
        }
        self.admit(now, request, snapshot, &scratch.candidates)?;
        let mut cycle = Cycle {
            request,
            snapshot,
            now,
            attributes: &mut scratch.attributes,
        };
        watch.lap();
        self.screen(&cycle, &mut scratch.candidates, watch)?;
        for (timer, producer) in &self.producers {
            producer.produce(&mut cycle, &scratch.candidates);
            timer.observe(watch.lap());
        }
        self.ask_admitters(&cycle, &scratch.candidates, watch)?;
        let picked = self.select_and_reserve(&mut cycle, &scratch.candidates, &mut scratch.profile, watch)?;
        let result = SchedulingResult {
            profiles: &self.profile_names,
            runs: &picked.runs,
            primary: picked.primary,
        };
        watch.lap();
        let changes = self.pre_request(&cycle, result, watch)?;
        Ok(Decision::new(snapshot, result, changes, picked.hooks))
    }

    fn select_and_reserve(
        &self,
        cycle: &mut Cycle<'_>,
        candidates: &[u32],
        scratch: &mut ProfileScratch,
        watch: &mut Stopwatch<'_>,
    ) -> Result<Picked, Rejection> {
        let mut runs: Vec<ProfileRun> = Vec::with_capacity(self.profiles.len());
        let random = self.critical.lock().unwrap_or_else(PoisonError::into_inner);
        let untried = without_tried(cycle.snapshot, candidates);
        let candidates = untried.as_deref().unwrap_or(candidates);
        let keeps_scores = self.retain_scores || self.handler.rivals() > 0;
        // A handler that never stops would hold the lock for ever; each profile runs at most once.
        while runs.len() < self.profiles.len() {
            let Some(next) = self.handler.next(cycle, &self.profile_names, &runs) else {
                break;
            };
            let Some(profile) = self.profiles.get(next) else {
                break;
            };
            let partner = match self.handler.rivals() {
                0 => None,
                _ => self.handler.partner(&self.profile_names, &runs, next),
            };
            let mut run = match partner.and_then(|first| runs.get_mut(first)) {
                Some(first) => self.run_pair(cycle, first, next, candidates, &random, scratch, watch),
                None => profile.run(cycle, candidates, &random, keeps_scores, scratch, watch),
            };
            run.profile = next;
            runs.push(run);
        }
        if !self.retain_scores {
            for run in &mut runs {
                run.scored.clear();
            }
        }
        if runs.is_empty() {
            let text = format!(
                "failed to find target endpoint: failed to run any scheduler profile for request {}",
                cycle.request.request_id
            );
            return Err(Rejection::new(ErrorCode::ResourceExhausted, text));
        }
        let primary = self.handler.primary(&self.profile_names, &runs)?;
        let Some(target) = runs.get(primary).and_then(|run| run.picked.first()).copied() else {
            return Err(Rejection::new(
                ErrorCode::Internal,
                "results must be greater than zero",
            ));
        };
        self.conditional_decode(cycle, target)?;
        let result = SchedulingResult {
            profiles: &self.profile_names,
            runs: &runs,
            primary,
        };
        let mut hooks = Vec::with_capacity(self.reservers.len());
        for reserver in &self.reservers {
            reserver.reserve(cycle, result, &mut hooks);
        }
        Ok(Picked { runs, primary, hooks })
    }

    /// `Prefer: if-available`: only an endpoint that already holds a prefix may answer. Asked
    /// before load is booked and the index is written, so that a refusal leaves no trace.
    fn conditional_decode(&self, cycle: &Cycle<'_>, target: u32) -> Result<(), Rejection> {
        let Some(preference) = cycle.request.headers.get("prefer") else {
            return Ok(());
        };
        let is_conditional = preference
            .split(',')
            .any(|token| token.trim().eq_ignore_ascii_case("if-available"));
        let matched = self.prefix_match.and_then(|key| cycle.attributes.get(key));
        if is_conditional && matched.is_some_and(|matched| matched.matched_blocks(target) == 0) {
            return Err(Rejection::new(
                ErrorCode::PreconditionFailed,
                "no decode worker has the requested KV cache",
            ));
        }
        Ok(())
    }

    /// Tells side tables which endpoints the pool has now; call it after each change of members.
    pub fn endpoints_changed(&self, snapshot: &Snapshot) {
        let mut live: Vec<SlotId> = snapshot.slot_ids.clone();
        live.sort_unstable();
        for observer in &self.observers {
            observer.retain(&live);
        }
        self.metrics.retain(&live);
    }

    /// Saturation of the whole pool, 1.0 and above is saturated.
    pub fn saturation(&self, now: Instant, snapshot: &Snapshot) -> f64 {
        let all: Vec<u32> = (0..snapshot.len() as u32).collect();
        self.saturation.saturation(now, snapshot, &all)
    }

    fn take_scratch(&self) -> Scratch {
        let kept = self.scratch.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut scratch = kept.unwrap_or_else(|| Scratch {
            attributes: self.attributes.attributes(),
            candidates: Vec::new(),
            profile: ProfileScratch::default(),
        });
        scratch.attributes.clear();
        scratch
    }

    fn return_scratch(&self, scratch: Scratch) {
        let mut kept = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < SCRATCH_KEPT {
            kept.push(scratch);
        }
    }
}

/// Leaves out the endpoints on trial that have had their request; `None` where that changes nothing or leaves
/// nobody. Asked under the pool's lock: two requests at once must not both be the trial.
fn without_tried(snapshot: &Snapshot, candidates: &[u32]) -> Option<Vec<u32>> {
    if !snapshot.has_trials() {
        return None;
    }
    let untried: Vec<u32> = candidates
        .iter()
        .copied()
        .filter(|index| !snapshot.is_tried(*index))
        .collect();
    (!untried.is_empty() && untried.len() < candidates.len()).then_some(untried)
}

fn timed<P: ?Sized>(
    metrics: &SchedulerMetrics,
    extension_point: &str,
    plugins: Vec<(TypedName, Arc<P>)>,
) -> Vec<(Timer, Arc<P>)> {
    let with_timer = |(name, plugin)| (metrics.timer(extension_point, &name), plugin);
    plugins.into_iter().map(with_timer).collect()
}

#[cfg(test)]
mod tests;
