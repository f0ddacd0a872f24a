//! Counts and shares of a rollout, under upstream's names.

use llmd_epp_api::{MetricsScope, TypedName};
use prometheus::{GaugeVec, IntCounterVec, Opts};

use super::shares::Revision;
use crate::metrics::PREFIX;

/// The families of all instances.
pub(super) struct Families {
    no_match: IntCounterVec,
    share: GaugeVec,
}

impl Families {
    pub(super) fn register(scope: &MetricsScope) -> Result<Self, prometheus::Error> {
        let options = |name: &str, help: &str| Opts::new(format!("{PREFIX}{name}"), help);
        let no_match = options(
            "disaggregatedset_strict_header_no_match_total",
            "[ALPHA] Requests with a strict header that no endpoint matches.",
        );
        let share = options(
            "disaggregatedset_revision_gating_share",
            "[ALPHA] Share of the requests that a revision gets, 0 to 1.",
        );
        let families = Self {
            no_match: IntCounterVec::new(no_match, &["plugin_type", "plugin_name", "selector"])?,
            share: GaugeVec::new(share, &["plugin_type", "plugin_name", "mode", "revision"])?,
        };
        scope.registry.register(Box::new(families.no_match.clone()))?;
        scope.registry.register(Box::new(families.share.clone()))?;
        Ok(families)
    }

    /// A strict header matched nothing.
    pub(super) fn no_match(&self, name: &TypedName, selector: &str) {
        let labels = [name.plugin_type, &*name.name, selector];
        self.no_match.with_label_values(&labels).inc();
    }

    /// Shows `now` in place of `before`.
    pub(super) fn show(&self, name: &TypedName, mode: &str, before: &[Revision], now: &[Revision]) {
        let is_gone = |revision: &&Revision| !now.iter().any(|other| other.name == revision.name);
        for revision in before.iter().filter(is_gone) {
            let labels = [name.plugin_type, &*name.name, mode, &*revision.name];
            // It is not there when another instance of this name took it away.
            let _ = self.share.remove_label_values(&labels);
        }
        for revision in now {
            let labels = [name.plugin_type, &*name.name, mode, &*revision.name];
            self.share.with_label_values(&labels).set(revision.share);
        }
    }
}
