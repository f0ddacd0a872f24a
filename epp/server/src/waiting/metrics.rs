//! Metrics of waiting requests, under upstream's names for its queues.

use std::time::Duration;

use llmd_epp_api::{InferenceRequest, MetricsScope};
use llmd_epp_core::label_cap::LabelCap;
use llmd_epp_core::metrics::{Family, TWIN_PREFIX};
use prometheus::{HistogramVec, IntCounterVec, IntGaugeVec};

const LABELS: [&str; 5] = [
    "fairness_id",
    "priority",
    "inference_pool",
    "model_name",
    "target_model_name",
];
const WITH_OUTCOME: [&str; 6] = [
    "fairness_id",
    "priority",
    "outcome",
    "inference_pool",
    "model_name",
    "target_model_name",
];
const TOTAL: [&str; 3] = ["outcome", "priority", "inference_pool"];
/// Buckets of the queue's time, in seconds (llm-d-router 0.10).
const SECONDS: [f64; 16] = [
    0.0001, 0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];

/// How the waiting of a request ended, by upstream's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Dispatched,
    Refused,
    TimedOut,
    ClientGone,
    Ended,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Dispatched => "Dispatched",
            Self::Refused => "RejectedNoEndpoints",
            Self::TimedOut => "EvictedNoEndpoints",
            Self::ClientGone => "EvictedContextCancelled",
            Self::Ended => "EvictedOther",
        }
    }
}

/// The families, and the pool's name in them.
pub struct WaitingMetrics {
    pool: String,
    size: IntGaugeVec,
    bytes: IntGaugeVec,
    duration: HistogramVec,
    total: IntCounterVec,
    fairness_ids: LabelCap,
    models: LabelCap,
}

impl WaitingMetrics {
    /// Registers the families; the deprecated twins have all labels.
    pub fn register(scope: &MetricsScope, pool: &str) -> Result<Self, prometheus::Error> {
        let family = |name: &'static str, text, labels| {
            Family::new(name, text, labels).twin(TWIN_PREFIX, name, labels)
        };
        Ok(Self {
            pool: pool.to_owned(),
            size: family(
                "flow_control_queue_size",
                "Requests that wait for an endpoint",
                &LABELS,
            )
            .gauge(scope)?,
            bytes: family(
                "flow_control_queue_bytes",
                "Bytes of the bodies of requests that wait for an endpoint",
                &LABELS,
            )
            .gauge(scope)?,
            duration: family(
                "flow_control_request_queue_duration_seconds",
                "Time that requests waited, in seconds",
                &WITH_OUTCOME,
            )
            .histogram(scope, &SECONDS)?,
            total: Family::new(
                "flow_control_requests_total",
                "Requests that had to wait, by how their waiting ended",
                &TOTAL,
            )
            .counter(scope)?,
            fairness_ids: LabelCap::default(),
            models: LabelCap::default(),
        })
    }

    /// A request's labels, with the number of values that clients choose bounded.
    pub(super) fn waiter(&self, request: &InferenceRequest) -> Waiter {
        Waiter {
            bytes: request.size_bytes,
            fairness_id: self.fairness_ids.admit(&request.objective.fairness_id).to_owned(),
            priority: request.objective.priority.to_string(),
            model: self.models.admit(&request.incoming_model).to_owned(),
            target: self.models.admit(&request.target_model).to_owned(),
        }
    }

    pub(super) fn came(&self, waiter: &Waiter) {
        self.add(waiter, 1);
    }

    pub(super) fn left(&self, waiter: &Waiter, outcome: Outcome, waited: Duration) {
        self.add(waiter, -1);
        self.ended(waiter, outcome, waited);
    }

    pub(super) fn refused(&self, waiter: &Waiter) {
        self.ended(waiter, Outcome::Refused, Duration::ZERO);
    }

    fn add(&self, waiter: &Waiter, requests: i64) {
        let labels = [
            waiter.fairness_id.as_str(),
            &waiter.priority,
            &self.pool,
            &waiter.model,
            &waiter.target,
        ];
        let bytes = i64::try_from(waiter.bytes).unwrap_or(i64::MAX);
        for (gauges, amount) in [(&self.size, requests), (&self.bytes, requests * bytes)] {
            gauges.with_label_values(&labels).add(amount);
        }
    }

    fn ended(&self, waiter: &Waiter, outcome: Outcome, waited: Duration) {
        let labels = [
            waiter.fairness_id.as_str(),
            &waiter.priority,
            outcome.as_str(),
            &self.pool,
            &waiter.model,
            &waiter.target,
        ];
        self.duration
            .with_label_values(&labels)
            .observe(waited.as_secs_f64());
        self.total
            .with_label_values(&[outcome.as_str(), &waiter.priority, &self.pool])
            .inc();
    }
}

/// A waiting request, for metrics.
pub(super) struct Waiter {
    pub(super) bytes: usize,
    fairness_id: String,
    priority: String,
    model: String,
    target: String,
}
