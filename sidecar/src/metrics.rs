//! What the sidecar counts: prefill legs, their time, and what became of failed ones.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGauge, Opts, Registry};

/// Upper bounds in seconds.
const SECONDS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0,
];

/// How a request with prefill engines went on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Prefill {
    /// An engine of its list computed the prompt.
    Remote,
    /// None did; the decode engine computes it itself.
    Local,
    /// The client was told.
    Failed,
}

impl Prefill {
    const ALL: [Self; 3] = [Self::Remote, Self::Local, Self::Failed];

    const fn label(self) -> &'static str {
        match self {
            Self::Remote => "remote",
            Self::Local => "local",
            Self::Failed => "failed",
        }
    }
}

/// What became of a next turn that was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NextTurn {
    /// An engine computed it.
    Warmed,
    /// Another one was under way, or there was nothing to compute.
    Skipped,
    /// No engine computed it.
    Failed,
}

impl NextTurn {
    const ALL: [Self; 3] = [Self::Warmed, Self::Skipped, Self::Failed];

    const fn label(self) -> &'static str {
        match self {
            Self::Warmed => "warmed",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
        }
    }
}

#[derive(Debug)]
pub(crate) struct Metrics {
    prefills: IntCounterVec,
    failures: IntCounterVec,
    next_turns: IntCounterVec,
    seconds: Histogram,
    running: IntGauge,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let prefills = IntCounterVec::new(
            Opts::new(
                "llm_d_disagg_sidecar_prefills_total",
                "Requests with prefill engines, by where their prompt was computed",
            ),
            &["where"],
        )?;
        let failures = IntCounterVec::new(
            Opts::new(
                "llm_d_disagg_sidecar_prefill_failures_total",
                "Prefill legs that failed, by status of the answer (0: none)",
            ),
            &["code"],
        )?;
        let options = HistogramOpts::new(
            "llm_d_disagg_sidecar_prefill_duration_seconds",
            "Time of the prefill legs that ended well, in seconds",
        );
        let seconds = Histogram::with_opts(options.buckets(SECONDS.to_vec()))?;
        let running = IntGauge::new("llm_d_disagg_sidecar_prefills_running", "Prefill legs that run")?;
        let next_turns = IntCounterVec::new(
            Opts::new(
                "llm_d_disagg_sidecar_next_turns_total",
                "Chats that asked for a speculative prefill of their next turn, by what became of it",
            ),
            &["outcome"],
        )?;
        registry.register(Box::new(next_turns.clone()))?;
        for outcome in NextTurn::ALL {
            next_turns.with_label_values(&[outcome.label()]);
        }
        registry.register(Box::new(prefills.clone()))?;
        registry.register(Box::new(failures.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        registry.register(Box::new(running.clone()))?;
        for ended in Prefill::ALL {
            // Zero says that nothing happened; nothing says nothing.
            prefills.with_label_values(&[ended.label()]);
        }
        Ok(Self {
            prefills,
            failures,
            next_turns,
            seconds,
            running,
        })
    }

    pub(crate) fn ended(&self, how: Prefill) {
        self.prefills.with_label_values(&[how.label()]).inc();
    }

    pub(crate) fn next_turn(&self, outcome: NextTurn) {
        self.next_turns.with_label_values(&[outcome.label()]).inc();
    }

    pub(crate) fn leg_failed(&self, status: u16) {
        self.failures.with_label_values(&[&status.to_string()]).inc();
    }

    pub(crate) fn leg_took(&self, time: Duration) {
        self.seconds.observe(time.as_secs_f64());
    }

    /// A leg runs until this is dropped.
    pub(crate) fn leg(&self) -> impl Drop + Send + use<> {
        self.running.inc();
        Running(self.running.clone())
    }
}

struct Running(IntGauge);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.dec();
    }
}
