//! When an engine has begun, lives and takes requests.

use k8s_openapi::api::core::v1::Probe;
use llmd_crds::EngineType;

use super::super::pod::{Timing, http_probe};
use super::ranks;
use crate::validated::ValidatedPool;

/// Startup, liveness and readiness.
pub(super) struct Probes {
    pub(super) startup: Probe,
    pub(super) liveness: Probe,
    pub(super) readiness: Probe,
}

pub(super) fn of(pool: &ValidatedPool) -> Probes {
    if ranks::is_supervised(pool) {
        supervised(pool)
    } else {
        single(pool)
    }
}

/// One server, which answers once the model is loaded.
fn single(pool: &ValidatedPool) -> Probes {
    let simulated = pool.engine.kind == EngineType::Simulator;
    // A model takes minutes to load, a simulator milliseconds: asking it every 30 s would cost half a minute.
    let start_period = if simulated { 1 } else { 30 };
    let start = Timing {
        initial: if simulated { 0 } else { 15 },
        period: start_period,
        timeout: 5,
        failures: (pool.engine.startup_seconds / start_period).max(1),
    };
    let live = Timing {
        initial: 0,
        period: 10,
        timeout: 5,
        failures: 3,
    };
    let ready = Timing {
        initial: 0,
        period: if simulated { 1 } else { 5 },
        timeout: 2,
        failures: 3,
    };
    Probes {
        startup: http_probe("/v1/models", "modelserver", &start),
        liveness: http_probe("/health", "modelserver", &live),
        readiness: http_probe("/v1/models", "modelserver", &ready),
    }
}

/// Several ranks: their supervisor is ready when all of them are.
fn supervised(pool: &ValidatedPool) -> Probes {
    let timing = |period, failures| Timing {
        initial: 0,
        period,
        timeout: 5,
        failures,
    };
    let ready = if pool.engine.kind == EngineType::Simulator {
        1
    } else {
        10
    };
    Probes {
        startup: http_probe(
            "/health",
            "supervisor",
            &timing(1, pool.engine.startup_seconds.max(1)),
        ),
        liveness: http_probe("/health", "supervisor", &timing(30, 3)),
        readiness: http_probe("/readyz", "supervisor", &timing(ready, 3)),
    }
}
