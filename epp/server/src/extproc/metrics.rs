//! Metrics of the gRPC streams, behind `--enable-grpc-stream-metrics`.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use tonic::Code;

/// `llm_d_epp_extproc_*`.
#[derive(Clone, Debug)]
pub struct StreamMetrics {
    inflight: IntGauge,
    duration: Histogram,
    total: IntCounterVec,
}

impl StreamMetrics {
    /// Registers the three families.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let inflight = IntGauge::new(
            "llm_d_epp_extproc_streams_inflight",
            "[ALPHA] Open ext_proc streams",
        )?;
        let opts = HistogramOpts::new(
            "llm_d_epp_extproc_stream_duration_seconds",
            "[ALPHA] Life of an ext_proc stream, in seconds",
        );
        let duration = Histogram::with_opts(opts.buckets(vec![
            0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
        ]))?;
        let opts = Opts::new(
            "llm_d_epp_extproc_streams_total",
            "[ALPHA] Ended ext_proc streams by gRPC code",
        );
        let total = IntCounterVec::new(opts, &["code"])?;
        registry.register(Box::new(inflight.clone()))?;
        registry.register(Box::new(duration.clone()))?;
        registry.register(Box::new(total.clone()))?;
        Ok(Self {
            inflight,
            duration,
            total,
        })
    }

    pub(super) fn opened(&self) {
        self.inflight.inc();
    }

    pub(super) fn closed(&self, code: Code, after: Duration) {
        self.inflight.dec();
        self.duration.observe(after.as_secs_f64());
        self.total.with_label_values(&[name(code)]).inc();
    }
}

/// `llm_d_epp_extproc_request_body_bytes_total` (ours): what Envoy sends of request bodies.
#[derive(Clone, Debug)]
pub struct ReceivedBytes(IntCounter);

impl ReceivedBytes {
    /// Registers the counter.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = IntCounter::new(
            "llm_d_epp_extproc_request_body_bytes_total",
            "[ALPHA] Bytes of request bodies that Envoy sent over ext_proc",
        )?;
        registry.register(Box::new(counter.clone()))?;
        Ok(Self(counter))
    }

    pub(super) fn request(&self, bytes: usize) {
        self.0.inc_by(bytes as u64);
    }
}

/// The code as gRPC for Go prints it.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::InvalidArgument => "InvalidArgument",
        Code::FailedPrecondition => "FailedPrecondition",
        _ => "Unknown",
    }
}
