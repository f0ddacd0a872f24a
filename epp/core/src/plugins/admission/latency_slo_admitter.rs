//! `latency-slo-admitter`: refuses requests below priority 0 whose latency objectives no endpoint is expected to meet.
//!
//! | parameter | default |
//! |---|---|
//! | `latencyPredictionInfoProducerName` | the default producer |
//!
//! Only requests with an objective (`x-llm-d-slo-ttft-ms`, `x-llm-d-slo-tpot-ms`) are refused, and only when something is
//! predicted, no prediction is within its objectives, no endpoint is idle (nothing running) and none is cold (less than
//! 2 % of its KV cache in use: its predictions say little).

use std::sync::Arc;

use llmd_epp_api::attribute::LATENCY_PREDICTION_INFO;
use llmd_epp_api::plugin::Admitter;
use llmd_epp_api::{
    AttributeKey, Cycle, Headers, LatencyPrediction, Need, Plugin, PluginType, Prediction, Random, Stability,
};
use llmd_openai::header;
use serde::Deserialize;

/// Type name in configurations.
pub const TYPE: &str = "latency-slo-admitter";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Beta,
    default_producer_of: &[],
    build: |context| {
        let Parameters {
            latency_prediction_info_producer_name,
        } = context.parameters()?;
        let predictions = context.consumes(
            LATENCY_PREDICTION_INFO,
            Some(&latency_prediction_info_producer_name),
            Need::Optional,
        )?;
        Ok(Plugin {
            admitter: Some(Arc::new(LatencySloAdmitter { predictions })),
            ..Plugin::default()
        })
    },
};

/// KV-cache use below which an endpoint is cold.
const COLD: f64 = 0.02;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parameters {
    latency_prediction_info_producer_name: String,
}

struct LatencySloAdmitter {
    predictions: AttributeKey<LatencyPrediction>,
}

fn has_objective(headers: &Headers) -> bool {
    [header::SLO_TTFT_MS, header::SLO_TPOT_MS]
        .into_iter()
        .any(|name| {
            let value = header::canonical_or_alias(name, |name| headers.get(name));
            value
                .and_then(|value| value.trim().parse::<f64>().ok())
                .is_some_and(|objective| objective > 0.0)
        })
}

impl Admitter for LatencySloAdmitter {
    fn refuse(&self, cycle: &Cycle<'_>, candidates: &[u32], _: &Random) -> Option<String> {
        if cycle.request.objective.priority >= 0 || !has_objective(&cycle.request.headers) {
            return None;
        }
        let predictions = cycle.attributes.get(self.predictions)?;
        let mut is_predicted = false;
        for index in candidates {
            let prediction = predictions.of(*index);
            is_predicted |= prediction.is_some();
            let (running, kv_usage) = (
                cycle.snapshot.running[*index as usize],
                cycle.snapshot.kv_usage[*index as usize],
            );
            if prediction.is_some_and(Prediction::is_valid) || running == 0 || kv_usage < COLD {
                return None;
            }
        }
        is_predicted.then(|| "no valid endpoint available to serve the request".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::plugins::testing::{Pool, Prepared, build_error};

    /// Two busy, warm endpoints and a sheddable request with an objective.
    fn pool() -> Pool {
        let busy = Pool::of(2).running(0, 1).running(1, 1);
        let mut pool = busy.kv_usage(0, 0.02).kv_usage(1, 0.5);
        pool.request.objective.priority = -1;
        pool.request.headers.push("x-slo-ttft-ms", b"200");
        pool
    }

    fn missed() -> Vec<Option<Prediction>> {
        let prediction = Prediction {
            is_ttft_valid: true,
            ..Prediction::default()
        };
        vec![Some(prediction), None]
    }

    fn refusal(predicted: Vec<Option<Prediction>>, pool: &Pool) -> Option<String> {
        let prepared = Prepared::new(&PLUGIN, &Value::Null).predicted(predicted);
        prepared.run(pool, |plugin, cycle| {
            let admitter = plugin.admitter.as_ref().unwrap();
            admitter.refuse(cycle, &[0, 1], &Random::seeded(1))
        })
    }

    #[test]
    fn a_request_that_nobody_can_serve_in_time_is_refused() {
        assert_eq!(
            refusal(missed(), &pool()).as_deref(),
            Some("no valid endpoint available to serve the request")
        );
    }

    #[test]
    fn one_reason_is_enough_to_admit() {
        let mut valid = missed();
        valid[1] = Some(Prediction {
            is_ttft_valid: true,
            is_tpot_valid: true,
            ..Prediction::default()
        });
        assert_eq!(refusal(valid, &pool()), None, "valid");
        assert_eq!(refusal(missed(), &pool().running(1, 0)), None, "idle");
        assert_eq!(refusal(missed(), &pool().kv_usage(0, 0.019)), None, "cold");
        assert_eq!(refusal(vec![None, None], &pool()), None, "nothing predicted");
        let mut usual = pool();
        usual.request.objective.priority = 0;
        assert_eq!(refusal(missed(), &usual), None, "not sheddable");
        for objective in ["", "0", "soon"] {
            let mut none = pool();
            none.request.headers = Headers::default();
            none.request
                .headers
                .push("x-llm-d-slo-tpot-ms", objective.as_bytes());
            assert_eq!(refusal(missed(), &none), None, "no objective: {objective:?}");
        }
    }

    #[test]
    fn a_misspelt_parameter_is_refused() {
        let error = build_error(&PLUGIN, json!({"producerName": "a"}));
        assert!(error.contains("producerName"), "{error}");
    }
}
