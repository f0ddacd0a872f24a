//! `active-request-scorer`: prefers endpoints with fewer requests in flight through this process.
//!
//! | parameter | default |
//! |---|---|
//! | `idleThreshold` | 0 |
//! | `maxBusyScore` | 1.0 |
//! | `inFlightLoadProducerName` | the default producer |
//! | `requestTimeout` | deprecated, has no effect: load is given back when the exchange ends |
//!
//! `c ≤ idle` gives 1; else `(max − c)/max · maxBusyScore`, max over the candidates.

use llmd_epp_api::attribute::IN_FLIGHT_LOAD;
use llmd_epp_api::plugin::Scorer;
use llmd_epp_api::{BuildError, Cycle, InFlightLoad, Need, Plugin, PluginType, Stability};
use serde::Deserialize;

use crate::config::GoDuration;

/// Type name in configurations.
pub const TYPE: &str = "active-request-scorer";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Beta,
    default_producer_of: &[],
    build: |context| {
        let Parameters {
            idle_threshold,
            max_busy_score,
            in_flight_load_producer_name,
            request_timeout,
        } = context.parameters()?;
        if request_timeout.is_some() {
            context.warn_without_effect("requestTimeout");
        }
        if !(0.0..=1.0).contains(&max_busy_score) {
            return Err(BuildError::value("maxBusyScore", "must be in 0..=1"));
        }
        context.consumes::<InFlightLoad>(
            IN_FLIGHT_LOAD,
            Some(&in_flight_load_producer_name),
            Need::Required,
        )?;
        Ok(Plugin::scorer(ActiveRequestScorer {
            idle_threshold,
            max_busy_score,
        }))
    },
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parameters {
    idle_threshold: u64,
    max_busy_score: f64,
    in_flight_load_producer_name: String,
    request_timeout: Option<GoDuration>,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            idle_threshold: 0,
            max_busy_score: 1.0,
            in_flight_load_producer_name: String::new(),
            request_timeout: None,
        }
    }
}

struct ActiveRequestScorer {
    idle_threshold: u64,
    max_busy_score: f64,
}

impl Scorer for ActiveRequestScorer {
    fn score(&self, cycle: &Cycle<'_>, candidates: &[u32], scores: &mut [f64]) {
        let mut max = 0;
        for (score, index) in scores.iter_mut().zip(candidates) {
            let active = cycle.snapshot.endpoints[*index as usize].slot().requests();
            max = max.max(active);
            *score = active as f64;
        }
        for score in scores {
            let active = *score;
            *score = if active <= self.idle_threshold as f64 {
                1.0
            } else {
                (max as f64 - active) / max as f64 * self.max_busy_score
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::testing::{Pool, build};

    #[test]
    fn idle_endpoints_come_before_busy_ones() {
        let pool = Pool::of(3).in_flight(1, 1).in_flight(2, 1).in_flight(2, 1);
        let scores = |parameters| pool.scored(&*build(&PLUGIN, parameters).scorer.unwrap());
        assert_eq!(scores(json!({})), [1.0, 0.5, 0.0]);
        assert_eq!(
            scores(json!({"idleThreshold": 1, "maxBusyScore": 0.5})),
            [1.0, 1.0, 0.0]
        );
        assert_eq!(scores(json!({"maxBusyScore": 0.5})), [1.0, 0.25, 0.0]);
    }
}
