//! `utilization-filter`: keeps endpoints whose metrics are all within their limits.
//!
//! | parameter | default |
//! |---|---|
//! | `conditions[]` {`metric`, `maxValue`} | at least one; `active-requests`, `running-requests`, `waiting-queue`, `kv-cache-utilization` (0..=1) |
//! | `fallbackOnEmpty` | false: nothing may be left |
//! | `inFlightLoadProducerName` | the default producer; read for `active-requests` |

use llmd_epp_api::attribute::IN_FLIGHT_LOAD;
use llmd_epp_api::plugin::Filter;
use llmd_epp_api::{BuildError, Cycle, InFlightLoad, Need, Plugin, PluginType, Random, Snapshot, Stability};
use serde::Deserialize;

/// Type name in configurations.
pub const TYPE: &str = "utilization-filter";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Alpha,
    default_producer_of: &[],
    build: |context| {
        let Parameters {
            conditions,
            fallback_on_empty,
            in_flight_load_producer_name,
        } = context.parameters()?;
        if conditions.is_empty() {
            return Err(BuildError::value("conditions", "must have at least one entry"));
        }
        for (index, condition) in conditions.iter().enumerate() {
            if condition.max_value.is_nan() || condition.max_value < 0.0 {
                let field = format!("conditions[{index}].maxValue");
                return Err(BuildError::value(&field, "must not be negative"));
            }
        }
        if conditions.iter().any(|one| one.metric == Metric::ActiveRequests) {
            context.consumes::<InFlightLoad>(
                IN_FLIGHT_LOAD,
                Some(&in_flight_load_producer_name),
                Need::Required,
            )?;
        }
        Ok(Plugin::filter(UtilizationFilter {
            conditions,
            fallback_on_empty,
        }))
    },
};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parameters {
    conditions: Vec<Condition>,
    fallback_on_empty: bool,
    in_flight_load_producer_name: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Condition {
    metric: Metric,
    max_value: f64,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Metric {
    ActiveRequests,
    RunningRequests,
    WaitingQueue,
    KvCacheUtilization,
}

impl Metric {
    fn of(self, snapshot: &Snapshot, index: usize) -> f64 {
        match self {
            Self::ActiveRequests => snapshot.endpoints[index].slot().requests() as f64,
            Self::RunningRequests => f64::from(snapshot.running[index]),
            Self::WaitingQueue => f64::from(snapshot.waiting[index]),
            Self::KvCacheUtilization => snapshot.kv_usage[index],
        }
    }
}

struct UtilizationFilter {
    conditions: Vec<Condition>,
    fallback_on_empty: bool,
}

impl Filter for UtilizationFilter {
    fn filter(&self, cycle: &Cycle<'_>, candidates: &mut Vec<u32>, _: &Random) {
        let is_within = |index: &u32| {
            let mut conditions = self.conditions.iter();
            conditions.all(|one| one.metric.of(cycle.snapshot, *index as usize) <= one.max_value)
        };
        if self.fallback_on_empty && !candidates.iter().any(is_within) {
            return;
        }
        candidates.retain(is_within);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::testing::{Pool, build, build_error};

    fn kept(parameters: serde_json::Value, pool: &Pool) -> Vec<u32> {
        pool.filtered(&*build(&PLUGIN, parameters).filter.unwrap())
    }

    #[test]
    fn every_condition_must_hold_and_the_limit_itself_is_within() {
        let pool = Pool::of(4)
            .waiting(0, 4)
            .waiting(1, 5)
            .kv_usage(2, 0.9)
            .running(3, 9)
            .in_flight(3, 1);
        let one = |metric: &str, max: f64| json!({"conditions": [{"metric": metric, "maxValue": max}]});
        assert_eq!(kept(one("waiting-queue", 4.0), &pool), [0, 2, 3]);
        assert_eq!(kept(one("kv-cache-utilization", 0.8), &pool), [0, 1, 3]);
        assert_eq!(kept(one("running-requests", 8.0), &pool), [0, 1, 2]);
        assert_eq!(kept(one("active-requests", 0.0), &pool), [0, 1, 2]);
        let both = json!({"conditions": [
            {"metric": "waiting-queue", "maxValue": 4}, {"metric": "kv-cache-utilization", "maxValue": 0.8}]});
        assert_eq!(kept(both, &pool), [0, 3]);
    }

    #[test]
    fn nothing_within_leaves_nothing_or_everything() {
        let pool = Pool::of(2).waiting(0, 9).waiting(1, 9);
        let mut parameters = json!({"conditions": [{"metric": "waiting-queue", "maxValue": 1}]});
        assert!(kept(parameters.clone(), &pool).is_empty());
        parameters["fallbackOnEmpty"] = json!(true);
        assert_eq!(kept(parameters, &pool), [0, 1]);
    }

    #[test]
    fn wrong_parameters_are_named() {
        assert!(build_error(&PLUGIN, json!({})).contains("conditions"));
        let negative = json!({"conditions": [{"metric": "waiting-queue", "maxValue": -1}]});
        assert!(build_error(&PLUGIN, negative).contains("conditions[0].maxValue"));
        let unknown = json!({"conditions": [{"metric": "temperature", "maxValue": 1}]});
        assert!(build_error(&PLUGIN, unknown).contains("conditions[0].metric"));
    }
}
