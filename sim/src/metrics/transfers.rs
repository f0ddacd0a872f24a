//! Metrics of vLLM's `NixlConnector`, there where one is configured.

use std::time::Duration;

use prometheus::{Histogram, IntCounter};

use super::Page;

const TRANSFER: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 5.0,
];

/// What the connector of one engine has done.
pub(super) struct Transfers {
    time: Histogram,
    failed: IntCounter,
    expired: IntCounter,
}

impl Transfers {
    pub(super) fn new(page: &Page) -> prometheus::Result<Self> {
        Ok(Self {
            time: page.histogram(
                "vllm:nixl_xfer_time_seconds",
                "Histogram of transfer duration for NIXL KV Cache transfers.",
                TRANSFER,
            )?,
            failed: page.counter(
                "vllm:nixl_num_failed_transfers_total",
                "Number of failed NIXL KV Cache transfers.",
            )?,
            expired: page.counter(
                "vllm:nixl_num_kv_expired_reqs_total",
                "Number of requests that had their KV expire. Note: this metric is tracked on the P instance.",
            )?,
        })
    }

    pub(super) fn done(&self, took: Duration) {
        self.time.observe(took.as_secs_f64());
    }

    pub(super) fn failed(&self) {
        self.failed.inc();
    }

    pub(super) fn expired(&self) {
        self.expired.inc();
    }
}
