//! Whether what we know of the cluster is current: one gauge and one counter per watched kind.

use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

use super::cause::Cause;

/// The families; clones share them.
#[derive(Clone, Debug)]
pub struct WatchMetrics {
    up: IntGaugeVec,
    errors: IntCounterVec,
}

impl WatchMetrics {
    /// Registers both families.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let up = IntGaugeVec::new(
            Opts::new(
                "llm_d_epp_kubernetes_watch_up",
                "[ALPHA] 1 while the list of this kind is current, 0 while the last known one is used.",
            ),
            &["resource"],
        )?;
        let errors = IntCounterVec::new(
            Opts::new(
                "llm_d_epp_kubernetes_watch_errors_total",
                "[ALPHA] Failed lists and ended watches of this kind.",
            ),
            &["resource", "reason"],
        )?;
        registry.register(Box::new(up.clone()))?;
        registry.register(Box::new(errors.clone()))?;
        Ok(Self { up, errors })
    }

    /// The list of `resource` is current from now on.
    pub fn current(&self, resource: &str) {
        self.up.with_label_values(&[resource]).set(1);
    }

    /// The list of `resource` is stale from now on.
    pub fn stale(&self, resource: &str, cause: Cause) {
        self.up.with_label_values(&[resource]).set(0);
        self.errors.with_label_values(&[resource, cause.as_str()]).inc();
    }

    /// `resource` is not watched any more.
    pub fn ended(&self, resource: &str) {
        // An error means that the series is not there.
        let _ = self.up.remove_label_values(&[resource]);
    }
}
