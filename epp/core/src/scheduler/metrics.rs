//! Scheduler and plugin durations, attempts per endpoint.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use llmd_epp_api::{Clock, Endpoint, InferenceRequest, MetricsScope, SlotId, TypedName};
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec};
use rustc_hash::FxHashMap;

use crate::label_cap::LabelCap;
use crate::metrics::{DURATION_BUCKETS, Family, TWIN_PREFIX};
use crate::spans;

const PLUGIN_LABELS: [&str; 3] = ["extension_point", "plugin_type", "plugin_name"];
const ATTEMPT_LABELS: [&str; 5] = [
    "status",
    "target_model_name",
    "endpoint_name",
    "namespace",
    "port",
];

/// One series of `plugin_duration_seconds`.
#[derive(Clone, Debug)]
pub(crate) struct Timer(Histogram);

impl Timer {
    pub(crate) fn observe(&self, took: Option<Duration>) {
        if let Some(took) = took {
            self.0.observe(took.as_secs_f64());
        }
    }
}

/// Splits a cycle into laps; without a clock there are none.
pub(crate) struct Stopwatch<'a> {
    clock: Option<&'a dyn Clock>,
    started: Option<Instant>,
    lap: Option<Instant>,
    is_traced: bool,
}

impl<'a> Stopwatch<'a> {
    pub(crate) fn start(clock: Option<&'a dyn Clock>) -> Self {
        let started = clock.map(Clock::now);
        Self {
            clock,
            started,
            lap: started,
            is_traced: spans::is_wanted(),
        }
    }

    /// Whether the cycle's steps are told as spans.
    pub(crate) fn is_traced(&self) -> bool {
        self.is_traced
    }

    /// Time since the last lap.
    pub(crate) fn lap(&mut self) -> Option<Duration> {
        let now = self.clock?.now();
        let before = self.lap.replace(now)?;
        Some(now.saturating_duration_since(before))
    }

    fn total(&self) -> Option<Duration> {
        Some(self.clock?.now().saturating_duration_since(self.started?))
    }
}

/// How a scheduling attempt ended.
#[derive(Clone, Copy)]
pub(crate) enum Attempt<'a> {
    /// With this endpoint.
    Success(Option<&'a Arc<Endpoint>>),
    /// Without one.
    Failure,
}

/// Counters of one endpoint, by target model.
type ByModel = FxHashMap<Arc<str>, IntCounter>;

/// Metric structs of one scheduler.
pub(crate) struct SchedulerMetrics {
    e2e: Histogram,
    plugins: HistogramVec,
    attempts: IntCounterVec,
    models: LabelCap,
    /// Label look-ups of five strings cost more than the pick of a small pool.
    successes: Mutex<FxHashMap<SlotId, (Arc<Endpoint>, ByModel)>>,
}

impl fmt::Debug for SchedulerMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SchedulerMetrics")
    }
}

impl SchedulerMetrics {
    pub(crate) fn register(scope: &MetricsScope) -> Result<Self, prometheus::Error> {
        let e2e = "scheduler_e2e_duration_seconds";
        let text = "End-to-end scheduling latency distribution in seconds.";
        let e2e = Family::new(e2e, text, &[]).twin(TWIN_PREFIX, e2e, &[]);
        let plugins = "plugin_duration_seconds";
        let text = "Plugin processing latency distribution in seconds for each extension point, plugin type and plugin name.";
        let plugins = Family::new(plugins, text, &PLUGIN_LABELS).twin(TWIN_PREFIX, plugins, &PLUGIN_LABELS);
        let attempts = "scheduler_attempts_total";
        let text = "Total number of scheduling attempts.";
        let attempts = Family::new(attempts, text, &ATTEMPT_LABELS)
            .twin(TWIN_PREFIX, attempts, &ATTEMPT_LABELS)
            .renaming(&[("endpoint_name", "pod_name")]);
        let none: [&str; 0] = [];
        Ok(Self {
            e2e: e2e.histogram(scope, &DURATION_BUCKETS)?.with_label_values(&none),
            plugins: plugins.histogram(scope, &DURATION_BUCKETS)?,
            attempts: attempts.counter(scope)?,
            models: LabelCap::default(),
            successes: Mutex::default(),
        })
    }

    pub(crate) fn timer(&self, extension_point: &str, name: &TypedName) -> Timer {
        let labels = [extension_point, name.plugin_type, &*name.name];
        Timer(self.plugins.with_label_values(&labels))
    }

    pub(crate) fn scheduled(&self, watch: &Stopwatch<'_>, request: &InferenceRequest, attempt: Attempt<'_>) {
        if let Some(took) = watch.total() {
            self.e2e.observe(took.as_secs_f64());
        }
        let model = self.models.admit(&request.target_model);
        match attempt {
            Attempt::Success(Some(endpoint)) => self.success(endpoint, model),
            Attempt::Success(None) | Attempt::Failure => {
                self.attempt([("failure"), model, "", "", ""]).inc();
            }
        }
    }

    fn success(&self, endpoint: &Arc<Endpoint>, model: &str) {
        let mut successes = self.successes.lock().unwrap_or_else(PoisonError::into_inner);
        let id = endpoint.slot().id();
        let (_, by_model) = successes
            .entry(id)
            .or_insert_with(|| (Arc::clone(endpoint), ByModel::default()));
        if let Some(counter) = by_model.get(model) {
            counter.inc();
            return;
        }
        let port = endpoint.spec().port.to_string();
        let counter = self.attempt(success_labels(endpoint, model, &port));
        counter.inc();
        by_model.insert(model.into(), counter);
    }

    fn attempt(&self, labels: [&str; 5]) -> IntCounter {
        self.attempts.with_label_values(&labels)
    }

    /// Drops the series of endpoints that are gone.
    pub(crate) fn retain(&self, live: &[SlotId]) {
        let mut successes = self.successes.lock().unwrap_or_else(PoisonError::into_inner);
        successes.retain(|id, (endpoint, by_model)| {
            let is_live = live.binary_search(id).is_ok();
            if !is_live {
                let port = endpoint.spec().port.to_string();
                for model in by_model.keys() {
                    let labels = success_labels(endpoint, model, &port);
                    // A series that is not there any more is what is wanted.
                    let _ = self.attempts.remove_label_values(&labels);
                }
            }
            is_live
        });
    }
}

fn success_labels<'a>(endpoint: &'a Endpoint, model: &'a str, port: &'a str) -> [&'a str; 5] {
    let name = endpoint.name();
    ["success", model, &name.name, &name.namespace, port]
}
