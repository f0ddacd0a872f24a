//! How often the shadow agrees.

use prometheus::{IntCounterVec, Opts, Registry};

/// How one decision compares with what happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The same endpoint.
    Agreed,
    /// Another endpoint of the pool.
    Differed,
    /// We would have refused the request.
    Rejected,
    /// The endpoint that served is none that we know.
    Unknown,
    /// The request ended before anybody served it, or nobody said who did.
    Unserved,
}

impl Verdict {
    const ALL: [Self; 5] = [
        Self::Agreed,
        Self::Differed,
        Self::Rejected,
        Self::Unknown,
        Self::Unserved,
    ];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Agreed => "agreed",
            Self::Differed => "differed",
            Self::Rejected => "rejected",
            Self::Unknown => "unknown_endpoint",
            Self::Unserved => "unserved",
        }
    }
}

/// `llm_d_epp_shadow_decisions_total`.
#[derive(Debug)]
pub struct ShadowMetrics(IntCounterVec);

impl ShadowMetrics {
    /// Registers the counter.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let help = "[ALPHA] Requests by how the pick of this shadow compares with the endpoint that served.";
        let decisions = IntCounterVec::new(Opts::new("llm_d_epp_shadow_decisions_total", help), &["result"])?;
        registry.register(Box::new(decisions.clone()))?;
        for verdict in Verdict::ALL {
            decisions.with_label_values(&[verdict.as_str()]);
        }
        Ok(Self(decisions))
    }

    pub(super) fn count(&self, verdict: Verdict) {
        self.0.with_label_values(&[verdict.as_str()]).inc();
    }
}
