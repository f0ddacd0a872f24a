//! Error counters of the data layer, under upstream's names and their deprecated twins.

use llmd_epp_core::metrics::twin_help;
use prometheus::{IntCounterVec, Opts, Registry};

use super::health::Ejection;

/// `datalayer_poll_errors_total` and `datalayer_extract_errors_total`.
pub(super) struct ErrorCounters {
    poll: Vec<IntCounterVec>,
    extract: Vec<IntCounterVec>,
}

impl ErrorCounters {
    pub(super) fn register(registry: &Registry, deprecated: bool) -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let current = format!("llm_d_epp_{name}");
            let twin = format!("llm_d_inference_scheduler_{name}");
            let twin_help = twin_help(&current, help);
            let names = [(current, format!("[ALPHA] {help}")), (twin, twin_help)];
            let mut counters = Vec::new();
            for (name, help) in names.into_iter().take(1 + usize::from(deprecated)) {
                let opts = Opts::new(name, help);
                let counter = IntCounterVec::new(opts, labels)?;
                registry.register(Box::new(counter.clone()))?;
                counters.push(counter);
            }
            Ok::<_, prometheus::Error>(counters)
        };
        Ok(Self {
            poll: counters(
                "datalayer_poll_errors_total",
                "Polls of a data source that failed.",
                &["source_type"],
            )?,
            extract: counters(
                "datalayer_extract_errors_total",
                "Pages from which an extractor could not read every value.",
                &["source_type", "extractor_type"],
            )?,
        })
    }

    pub(super) fn poll_failed(&self, source: &str) {
        for counter in &self.poll {
            counter.with_label_values(&[source]).inc();
        }
    }

    pub(super) fn extract_failed(&self, source: &str, extractor: &str) {
        for counter in &self.extract {
            counter.with_label_values(&[source, extractor]).inc();
        }
    }
}

/// `endpoint_ejections_total` (ours).
pub(super) struct Ejections(IntCounterVec);

impl Ejections {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let opts = Opts::new(
            "llm_d_epp_endpoint_ejections_total",
            "[ALPHA] Times that an endpoint was left out because it was unreachable, stalled or failing.",
        );
        let counter = IntCounterVec::new(opts, &["reason"])?;
        registry.register(Box::new(counter.clone()))?;
        for why in Ejection::ALL {
            // Zero says that nothing happened; nothing says nothing.
            counter.with_label_values(&[why.as_str()]);
        }
        Ok(Self(counter))
    }

    pub(super) fn count(&self, why: Ejection) {
        self.0.with_label_values(&[why.as_str()]).inc();
    }
}
