//! The operator's own metrics.

use prometheus::{
    HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, exponential_buckets,
};

/// Counters of one process.
#[derive(Clone)]
pub(crate) struct Metrics {
    reconciles: IntCounterVec,
    errors: IntCounterVec,
    duration: HistogramVec,
    applies: IntCounterVec,
    corrected: IntCounterVec,
    conditions: IntGaugeVec,
    pub(crate) leader: IntGauge,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let buckets = exponential_buckets(0.001, 2.0, 14)?;
        let duration = HistogramVec::new(
            HistogramOpts::new(
                "llmd_operator_reconcile_duration_seconds",
                "Time of one reconcile, waiting for the status bucket left out.",
            )
            .buckets(buckets),
            &["controller"],
        )?;
        registry.register(Box::new(duration.clone()))?;
        let conditions = IntGaugeVec::new(
            Opts::new("llmd_deployment_condition", "1 where a condition is true."),
            &["namespace", "name", "type"],
        )?;
        registry.register(Box::new(conditions.clone()))?;
        let leader = IntGauge::new("llmd_operator_leader", "1 on the replica that acts.")?;
        registry.register(Box::new(leader.clone()))?;
        Ok(Self {
            reconciles: counter(
                "llmd_operator_reconcile_total",
                "Reconciles by result: success, stalled, error.",
                &["controller", "result"],
            )?,
            errors: counter(
                "llmd_operator_reconcile_errors_total",
                "Failed reconciles by reason: forbidden, conflict, refused, unreachable.",
                &["controller", "reason"],
            )?,
            applies: counter(
                "llmd_operator_apply_total",
                "Objects sent to the API server by outcome: created, changed, corrected, unchanged, conflict, refused.",
                &["kind", "outcome"],
            )?,
            corrected: counter(
                "llmd_operator_drift_corrected_total",
                "Objects that somebody else had changed or deleted.",
                &["kind"],
            )?,
            duration,
            conditions,
            leader,
        })
    }

    pub(crate) fn reconciled(&self, controller: &str, result: &str, seconds: f64) {
        self.reconciles.with_label_values(&[controller, result]).inc();
        self.duration.with_label_values(&[controller]).observe(seconds);
    }

    pub(crate) fn failed(&self, controller: &str, reason: &str) {
        self.reconciles.with_label_values(&[controller, "error"]).inc();
        self.errors.with_label_values(&[controller, reason]).inc();
    }

    pub(crate) fn applied(&self, kind: &str, outcome: &str) {
        self.applies.with_label_values(&[kind, outcome]).inc();
        if outcome == "corrected" {
            self.corrected.with_label_values(&[kind]).inc();
        }
    }

    pub(crate) fn condition(&self, namespace: &str, name: &str, kind: &str, holds: bool) {
        self.conditions
            .with_label_values(&[namespace, name, kind])
            .set(holds.into());
    }

    /// The resource is gone.
    pub(crate) fn forget(&self, namespace: &str, name: &str) {
        for kind in crate::status::TYPES {
            let _ = self.conditions.remove_label_values(&[namespace, name, kind]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prometheus::proto::MetricType;

    use super::*;

    const PAGE: &str = include_str!("../../../docs/kubernetes/metrics.md");

    #[test]
    fn every_metric_has_its_row_and_every_row_its_metric() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        metrics.reconciled("c", "success", 0.1);
        metrics.failed("c", "refused");
        metrics.applied("Kind", "corrected");
        metrics.condition("n", "a", crate::status::READY, true);
        let given: BTreeSet<String> = registry
            .gather()
            .iter()
            .map(|family| {
                let kind = match family.get_field_type() {
                    MetricType::COUNTER => "counter",
                    MetricType::GAUGE => "gauge",
                    _ => "histogram",
                };
                let labels = family.get_metric()[0].get_label().iter();
                let labels: BTreeSet<&str> = labels.map(prometheus::proto::LabelPair::name).collect();
                format!("{} {kind} {labels:?}", family.name())
            })
            .collect();
        let told: BTreeSet<String> = PAGE
            .lines()
            .filter(|line| line.starts_with("| `llmd_"))
            .map(|line| {
                let cells: Vec<&str> = line.split('|').map(str::trim).collect();
                let labels = cells[3].split(", ").map(|label| label.trim_matches('`'));
                let labels: BTreeSet<&str> = labels.filter(|label| !label.is_empty()).collect();
                format!("{} {} {labels:?}", cells[1].trim_matches('`'), cells[2])
            })
            .collect();
        assert_eq!(given, told);
    }

    #[test]
    fn a_resource_that_is_gone_has_no_series() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        for name in ["a", "b"] {
            for kind in crate::status::TYPES {
                metrics.condition("n", name, kind, true);
            }
        }
        metrics.forget("n", "a");
        let left = registry
            .gather()
            .iter()
            .map(|family| family.get_metric().len())
            .sum::<usize>();
        assert_eq!(
            left,
            crate::status::TYPES.len() + 1,
            "those of b, and whether it leads"
        );
    }
}
