//! `probabilistic-admitter`: sheds requests below priority 0 the more often, the fuller the endpoints are.
//!
//! | parameter | default |
//! |---|---|
//! | `queueDepthThreshold` | 5, above 0 |
//! | `kvCacheUtilThreshold` | 0.8, in 0..=1 and above 0 |
//! | `power` | 5, above 0 |
//! | `k` | 300, above 0 |
//!
//! Saturation is the mean of max(queue / threshold, KV use / threshold) over the candidates; a request is refused with
//! probability min(saturation^power · k, 1).

use std::sync::Arc;

use llmd_epp_api::plugin::Admitter;
use llmd_epp_api::{BuildError, Cycle, Plugin, PluginType, Random, Stability};
use serde::Deserialize;

/// Type name in configurations.
pub const TYPE: &str = "probabilistic-admitter";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Beta,
    default_producer_of: &[],
    build: |context| {
        let parameters: Parameters = context.parameters()?;
        Ok(Plugin {
            admitter: Some(Arc::new(parameters.checked()?)),
            ..Plugin::default()
        })
    },
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parameters {
    queue_depth_threshold: u32,
    kv_cache_util_threshold: f64,
    power: f64,
    k: f64,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            queue_depth_threshold: 5,
            kv_cache_util_threshold: 0.8,
            power: 5.0,
            k: 300.0,
        }
    }
}

impl Parameters {
    fn checked(self) -> Result<Self, BuildError> {
        let is_positive = |value: f64| value > 0.0 && value.is_finite();
        let wrong = |field: &str, reason: &str| Err(BuildError::value(field, reason));
        if self.queue_depth_threshold == 0 {
            return wrong("queueDepthThreshold", "must be above 0");
        }
        if !(self.kv_cache_util_threshold > 0.0 && self.kv_cache_util_threshold <= 1.0) {
            return wrong("kvCacheUtilThreshold", "must be above 0 and at most 1");
        }
        if !is_positive(self.power) {
            return wrong("power", "must be above 0");
        }
        if !is_positive(self.k) {
            return wrong("k", "must be above 0");
        }
        Ok(self)
    }

    fn saturation(&self, cycle: &Cycle<'_>, candidates: &[u32]) -> f64 {
        let of = |index: &u32| {
            let index = *index as usize;
            let queue = f64::from(cycle.snapshot.waiting[index]) / f64::from(self.queue_depth_threshold);
            queue.max(cycle.snapshot.kv_usage[index] / self.kv_cache_util_threshold)
        };
        candidates.iter().map(of).sum::<f64>() / candidates.len().max(1) as f64
    }
}

impl Admitter for Parameters {
    fn refuse(&self, cycle: &Cycle<'_>, candidates: &[u32], random: &Random) -> Option<String> {
        if cycle.request.objective.priority >= 0 {
            return None;
        }
        let saturation = self.saturation(cycle, candidates);
        let probability = (saturation.powf(self.power) * self.k).min(1.0);
        (random.unit() < probability)
            .then(|| format!("{TYPE}: rejected, saturation={saturation:.3} prob={probability:.2}"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use llmd_epp_api::RejectReason;

    use super::*;
    use crate::config::{BuildEnv, EndpointPickerConfig, assemble};
    use crate::plugins::testing::{Pool, build, build_error};

    /// How many of 1000 requests of this priority are refused, and in which words.
    fn refused(parameters: Value, pool: &mut Pool, priority: i32) -> (usize, Option<String>) {
        let admitter = build(&PLUGIN, parameters).admitter.unwrap();
        pool.request.objective.priority = priority;
        let candidates: Vec<u32> = (0..pool.snapshot.len() as u32).collect();
        let random = Random::seeded(3);
        let ask = |_| pool.cycle(|cycle| admitter.refuse(cycle, &candidates, &random));
        let refusals: Vec<String> = (0..1000).filter_map(ask).collect();
        (refusals.len(), refusals.into_iter().next())
    }

    #[test]
    fn the_share_of_refusals_follows_the_power_of_saturation() {
        // max(1/5, 0.08/0.8) and max(0/5, 0.16/0.8): 0.2, and 0.2^5 · 300 = 0.096.
        let mut pool = Pool::of(2).waiting(0, 1).kv_usage(0, 0.08).kv_usage(1, 0.16);
        let (refusals, words) = refused(Value::Null, &mut pool, -1);
        assert!((60..140).contains(&refusals), "{refusals}");
        assert_eq!(
            words.as_deref(),
            Some("probabilistic-admitter: rejected, saturation=0.200 prob=0.10")
        );
        // (1 + 0) / 2 with a power of 1 and k = 1.
        let mut pool = Pool::of(2).waiting(0, 5);
        let (refusals, _) = refused(json!({"power": 1, "k": 1}), &mut pool, -1);
        assert!((430..570).contains(&refusals), "{refusals}");
        assert_eq!(refused(json!({"power": 1, "k": 2}), &mut pool, -1).0, 1000);
    }

    #[test]
    fn a_scheduler_answers_429_and_books_nothing() {
        let config = json!({
            "apiVersion": "llm-d.ai/v1alpha1",
            "kind": "EndpointPickerConfig",
            "plugins": [
                {"type": TYPE},
                {"type": "utilization-detector", "parameters": {"queueDepthThreshold": 999_999}},
                {"type": "random-picker"},
            ],
            "flowControl": {"saturationDetector": {"pluginRef": "utilization-detector"}},
        });
        let decoded = EndpointPickerConfig::decode(&config.to_string()).unwrap();
        let scheduler = assemble(&decoded.config, BuildEnv::detached()).unwrap().scheduler;
        let mut pool = Pool::of(2).waiting(0, 9).waiting(1, 9);
        let schedule = |pool: &Pool| scheduler.schedule(pool.now, &pool.request, &pool.snapshot, None);
        schedule(&pool).unwrap();
        pool.request.objective.priority = -1;
        let rejection = schedule(&pool).unwrap_err();
        assert_eq!(
            rejection.body(),
            "inference error: ResourceExhausted - request cannot be admitted: probabilistic-admitter: rejected, saturation=1.800 prob=1.00"
        );
        assert_eq!(rejection.reason, Some(RejectReason::Saturated));
        assert_eq!(
            pool.snapshot.endpoints[0].slot().dispatched() + pool.snapshot.endpoints[1].slot().dispatched(),
            1
        );
    }

    #[test]
    fn idle_endpoints_and_other_priorities_refuse_nothing() {
        assert_eq!(refused(Value::Null, &mut Pool::of(2), -1).0, 0);
        let mut full = Pool::of(1).waiting(0, 50);
        assert_eq!(refused(Value::Null, &mut full, -1).0, 1000);
        assert_eq!(refused(Value::Null, &mut full, 0).0, 0);
    }

    #[test]
    fn values_out_of_range_are_refused_by_name() {
        for (field, value) in [
            ("queueDepthThreshold", json!(0)),
            ("kvCacheUtilThreshold", json!(1.5)),
            ("power", json!(0)),
            ("k", json!(-1)),
        ] {
            let error = build_error(&PLUGIN, json!({field: value}));
            assert!(error.contains(&format!("parameters.{field}: must be")), "{error}");
        }
    }
}
