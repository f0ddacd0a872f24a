//! The traits a plugin implements, and the cycle they all read.
//!
//! Candidates are indices into the [`Snapshot`]'s columns; buffers belong to the scheduler and are
//! reused, so that a plugin allocates nothing per endpoint.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use crate::attribute::Attributes;
use crate::error::Rejection;
use crate::request::InferenceRequest;
use crate::response::{Metadata, ResponseHook};
use crate::slots::SlotId;
use crate::snapshot::Snapshot;

/// Type and instance name of a plugin (upstream `TypedName`); the values of metric labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TypedName {
    /// The registered type.
    pub plugin_type: &'static str,
    /// The instance, the type's name when the configuration gives none.
    pub name: Arc<str>,
}

impl fmt::Display for TypedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.name, self.plugin_type)
    }
}

/// Seeded randomness of one pool; used under the pool's lock, so that a seed gives one sequence.
#[derive(Debug)]
pub struct Random(RefCell<fastrand::Rng>);

impl Random {
    /// A generator that repeats itself for equal seeds.
    pub fn seeded(seed: u64) -> Self {
        Self(RefCell::new(fastrand::Rng::with_seed(seed)))
    }

    /// Uniform in `0.0..1.0`.
    pub fn unit(&self) -> f64 {
        self.0.borrow_mut().f64()
    }

    /// Uniform in `0..bound`; 0 for an empty range.
    pub fn below(&self, bound: usize) -> usize {
        if bound == 0 {
            return 0;
        }
        self.0.borrow_mut().usize(0..bound)
    }

    /// Any 64-bit value.
    pub fn bits(&self) -> u64 {
        self.0.borrow_mut().u64(..)
    }
}

/// Everything one scheduling decision reads. Live load is read from the endpoints' slots.
pub struct Cycle<'a> {
    /// The request.
    pub request: &'a InferenceRequest,
    /// The pool.
    pub snapshot: &'a Snapshot,
    /// When the decision was asked for.
    pub now: Instant,
    /// What producers computed, typed and keyed by (attribute, producer).
    pub attributes: &'a mut Attributes,
}

/// The outcome of one scheduling profile.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProfileRun {
    /// Index of the profile in configuration order.
    pub profile: usize,
    /// Chosen endpoints, best first; empty when the profile failed.
    pub picked: Vec<u32>,
    /// Candidates that reached the picker, with their totals; empty unless scores are retained.
    pub scored: Vec<(u32, f64)>,
}

/// What the profile handler made of the runs.
#[derive(Clone, Copy, Debug)]
pub struct SchedulingResult<'a> {
    /// Profile names in configuration order.
    pub profiles: &'a [Arc<str>],
    /// The runs, in the order they ran.
    pub runs: &'a [ProfileRun],
    /// Index into `runs` of the profile that decides where the request goes.
    pub primary: usize,
}

impl SchedulingResult<'_> {
    /// The endpoint the request goes to.
    pub fn target(&self) -> Option<u32> {
        self.runs.get(self.primary)?.picked.first().copied()
    }

    /// Name of the profile of a run.
    pub fn profile_name(&self, run: &ProfileRun) -> &str {
        &self.profiles[run.profile]
    }

    /// First endpoint of each run that chose one, with the profile's name.
    pub fn first_endpoints(&self) -> impl Iterator<Item = (&str, u32)> {
        self.runs
            .iter()
            .filter_map(|run| Some((self.profile_name(run), *run.picked.first()?)))
    }
}

/// Removes candidates.
pub trait Filter: Send + Sync {
    /// Keeps in `candidates` what may serve the request, in order.
    fn filter(&self, cycle: &Cycle<'_>, candidates: &mut Vec<u32>, random: &Random);
}

/// Rates candidates.
pub trait Scorer: Send + Sync {
    /// Writes one score per candidate; the scheduler clamps to 0..=1 and applies the weight.
    /// `scores` is as long as `candidates` and filled with zeros.
    fn score(&self, cycle: &Cycle<'_>, candidates: &[u32], scores: &mut [f64]);
}

/// Chooses among scored candidates.
pub trait Picker: Send + Sync {
    /// Appends at least one of `candidates` (never empty) to `picked`, best first.
    /// `totals` runs parallel to `candidates`.
    fn pick(
        &self,
        cycle: &Cycle<'_>,
        candidates: &[u32],
        totals: &[f64],
        random: &Random,
        picked: &mut Vec<u32>,
    );
}

/// Decides which profiles run and which one is primary.
pub trait ProfileHandler: Send + Sync {
    /// The next profile to run given what ran; `None` when done. Called until it says so. May write
    /// attributes that the next profile reads.
    fn next(&self, cycle: &mut Cycle<'_>, profiles: &[Arc<str>], runs: &[ProfileRun]) -> Option<usize>;

    /// Index into `runs` of the primary profile.
    fn primary(&self, profiles: &[Arc<str>], runs: &[ProfileRun]) -> Result<usize, Rejection>;

    /// Why this handler cannot work with these profiles, asked once when the configuration loads.
    fn check(&self, profiles: &[Arc<str>]) -> Result<(), String>;

    /// How many endpoints of a profile are tried with the profile that is chosen together with it; 0 when every profile
    /// chooses for itself. The same for the handler's whole life.
    fn rivals(&self) -> usize {
        0
    }

    /// Index into `runs` of the run whose endpoint is chosen together with that of profile `next`. Asked only where
    /// [`Self::rivals`] is not 0.
    fn partner(&self, _profiles: &[Arc<str>], _runs: &[ProfileRun], _next: usize) -> Option<usize> {
        None
    }

    /// Lets the next profile see `endpoint` as if its partner had chosen it; `false` where the two do not go together.
    fn propose(&self, _cycle: &mut Cycle<'_>, _endpoint: u32) -> bool {
        false
    }
}

/// Computes attributes before the profiles run, outside the pool's lock.
pub trait DataProducer: Send + Sync {
    /// Writes the declared attributes. A producer that has nothing to say writes nothing.
    fn produce(&self, cycle: &mut Cycle<'_>, candidates: &[u32]);
}

/// Lets requests wait for each other before they are admitted and scheduled.
pub trait Gather: Send + Sync {
    /// Takes the request in and leaves with it ([`InferenceRequest::gathered`]) what the plugin needs to know it again;
    /// returns until when it has to wait. `snapshot` is the whole pool.
    fn gather(&self, now: Instant, request: &mut InferenceRequest, snapshot: &Snapshot) -> Option<Instant>;
}

/// Books load inside the critical section of select-and-reserve: the next pick sees it.
pub trait Reserve: Send + Sync {
    /// Books what the decision puts on endpoints. Dropping a hook gives back what it still holds.
    fn reserve(
        &self,
        cycle: &Cycle<'_>,
        result: SchedulingResult<'_>,
        hooks: &mut Vec<Box<dyn ResponseHook>>,
    );
}

/// What plugins change about a request that was decided, beside where it goes.
#[derive(Debug, Default)]
pub struct RequestChanges {
    /// Headers to set; the last of a name wins.
    pub set_headers: Vec<(Arc<str>, String)>,
    /// Client headers to remove, in lower case. One that is also set is set.
    pub remove_headers: Vec<Arc<str>>,
    /// Takes the place of the chosen endpoints as the destination (`ip:port`).
    pub destination: Option<Arc<str>>,
    /// Dynamic metadata for the proxy; namespace `envoy.lb` is merged with the destination's.
    pub metadata: Vec<Metadata>,
    /// Hooks that follow the response.
    pub hooks: Vec<Box<dyn ResponseHook>>,
}

/// Reacts to a decision after the pool's lock is released.
pub trait PreRequest: Send + Sync {
    /// May read attributes and change the request.
    ///
    /// # Errors
    /// The request is answered with the rejection and its load given back. All plugins run; one
    /// rejection is answered as it is, several as one internal error.
    fn pre_request(
        &self,
        cycle: &Cycle<'_>,
        result: SchedulingResult<'_>,
        changes: &mut RequestChanges,
    ) -> Result<(), Rejection>;
}

/// Looks at a request's headers before its priority and flow are used.
pub trait RequestHeaderProcessor: Send + Sync {
    /// May change what the request says about itself: flow, headers that plugins read.
    ///
    /// # Errors
    /// The request is answered with the rejection.
    fn process(&self, request: &mut InferenceRequest) -> Result<(), Rejection>;
}

/// Takes endpoints out for all profiles, before producers run.
pub trait Screener: Send + Sync {
    /// Clears `kept` (parallel to `candidates`) for endpoints that may not serve the request. Every
    /// screener sees all candidates; an endpoint stays that nobody takes out.
    fn screen(&self, cycle: &Cycle<'_>, candidates: &[u32], random: &Random, kept: &mut [bool]);
}

/// Refuses requests after producers ran and before profiles do.
pub trait Admitter: Send + Sync {
    /// The reason to refuse; the first one wins.
    fn refuse(&self, cycle: &Cycle<'_>, candidates: &[u32], random: &Random) -> Option<String>;
}

/// Says whether a stage of a disaggregated request runs; profile handlers ask it.
pub trait Decider: Send + Sync {
    /// `decode` is the endpoint chosen to decode, where it is known.
    fn decide(&self, cycle: &Cycle<'_>, decode: Option<u32>) -> bool;
}

/// What a plugin holds, for `/debug/plugins/state`.
pub trait StateDumper: Send + Sync {
    /// Bounded in size, free of prompts.
    fn dump(&self) -> serde_json::Value;
}

/// How full a set of endpoints is.
pub trait SaturationDetector: Send + Sync {
    /// 1.0 and above is saturated; not clamped. 1.0 for no endpoint.
    fn saturation(&self, now: Instant, snapshot: &Snapshot, candidates: &[u32]) -> f64;
}

/// Side tables that follow the pool.
pub trait EndpointObserver: Send + Sync {
    /// Forgets every slot that is not in `live` (sorted).
    fn retain(&self, live: &[SlotId]);
}
