//! Whether configurations were taken over.

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};

/// Counters and gauges of reloads (ours: upstream restarts).
#[derive(Debug)]
pub struct ReloadMetrics {
    reloads: IntCounterVec,
    generation: IntGauge,
    successful: IntGauge,
}

const SUCCESS: &str = "success";
const FAILURE: &str = "failure";

impl ReloadMetrics {
    /// Registers them; the configuration at the start is generation 1.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, format!("[ALPHA] {help}"))?;
            registry.register(Box::new(gauge.clone()))?;
            gauge.set(1);
            Ok::<_, prometheus::Error>(gauge)
        };
        let help = "[ALPHA] Changes of the configuration file, by whether they were taken over.";
        let reloads = IntCounterVec::new(Opts::new("llm_d_epp_config_reload_total", help), &["result"])?;
        registry.register(Box::new(reloads.clone()))?;
        for result in [SUCCESS, FAILURE] {
            reloads.with_label_values(&[result]);
        }
        Ok(Self {
            reloads,
            generation: gauge(
                "llm_d_epp_config_generation",
                "Configurations that ran so far, the running one included.",
            )?,
            successful: gauge(
                "llm_d_epp_config_last_reload_successful",
                "1 while the running configuration is what the file says, 0 while the file is refused.",
            )?,
        })
    }

    /// The file is what runs; `changed` when it was not before.
    pub(super) fn succeeded(&self, changed: bool) {
        if changed {
            self.reloads.with_label_values(&[SUCCESS]).inc();
            self.generation.inc();
        }
        self.successful.set(1);
    }

    /// The file was refused.
    pub(super) fn failed(&self) {
        self.reloads.with_label_values(&[FAILURE]).inc();
        self.successful.set(0);
    }
}
