//! `multicluster-metrics-extractor`: the averages that the picker of another cluster shows of its pool.
//!
//! | parameter | default |
//! |---|---|
//! | `kvCacheUtilizationMetric` | `llm_d_epp_average_kv_cache_utilization` |
//! | `queueSizeMetric` | `llm_d_epp_average_queue_size` |
//!
//! Both are metric specs as those of `core-metrics-extractor`. They go into the attributes
//! `llm-d.ai/multicluster-kv-cache-utilization` and `llm-d.ai/multicluster-queue-size`.

use std::sync::Arc;

use llmd_epp_api::registry::Component;
use llmd_epp_api::{BuildError, Plugin, PluginType, Stability};
use serde::Deserialize;

use super::core_metrics_extractor::{self, CoreMetricsExtractor, CustomMetric, EngineConfig};
use super::reader::PageReader;
use crate::plugins::scorer::{multicluster_kv_cache_utilization_scorer, multicluster_queue_scorer};

/// Type name in configurations.
pub const TYPE: &str = "multicluster-metrics-extractor";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Alpha,
    default_producer_of: &[],
    build: |context| {
        let parameters: Parameters = context.parameters()?;
        let reader = of(&parameters).map_err(|error| BuildError::Shape(error.to_string()))?;
        let reader = PageReader::Metrics(reader);
        Ok(Plugin::component(Component::Extractor(Arc::new(reader))))
    },
};

/// The only engine: a cluster.
const CLUSTER: &str = "cluster";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parameters {
    kv_cache_utilization_metric: String,
    queue_size_metric: String,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            kv_cache_utilization_metric: "llm_d_epp_average_kv_cache_utilization".to_owned(),
            queue_size_metric: "llm_d_epp_average_queue_size".to_owned(),
        }
    }
}

fn of(parameters: &Parameters) -> Result<CoreMetricsExtractor, core_metrics_extractor::ParameterError> {
    let defaults = Parameters::default();
    let metric = |key: &str, written: &String, default: String| CustomMetric {
        attribute_key: key.to_owned(),
        metric_spec: if written.is_empty() {
            default
        } else {
            written.clone()
        },
    };
    let cluster = EngineConfig {
        name: CLUSTER.to_owned(),
        custom_metrics: vec![
            metric(
                multicluster_kv_cache_utilization_scorer::ATTRIBUTE,
                &parameters.kv_cache_utilization_metric,
                defaults.kv_cache_utilization_metric,
            ),
            metric(
                multicluster_queue_scorer::ATTRIBUTE,
                &parameters.queue_size_metric,
                defaults.queue_size_metric,
            ),
        ],
        ..EngineConfig::default()
    };
    CoreMetricsExtractor::new(&core_metrics_extractor::Parameters {
        // Labels of a cluster name no engine.
        engine_label_key: Some(String::from("-")),
        default_engine: Some(CLUSTER.to_owned()),
        engine_configs: vec![cluster],
    })
    .map(|extractor| extractor.named(TYPE))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Instant;

    use llmd_epp_api::MetricsRecord;

    use super::*;

    #[test]
    fn the_averages_of_a_pool_are_read() {
        let page = b"# TYPE llm_d_epp_average_kv_cache_utilization gauge\n\
            llm_d_epp_average_kv_cache_utilization{name=\"p\"} 0.25\n\
            # TYPE llm_d_epp_average_queue_size gauge\nllm_d_epp_average_queue_size{name=\"p\"} 7\n";
        let extractor = of(&Parameters::default()).expect("valid");
        let engine = extractor.engine_of(&BTreeMap::new());
        let (mut scratch, mut record) = (
            core_metrics_extractor::Scratch::default(),
            MetricsRecord::default(),
        );
        let extracted = extractor.extract(engine, page, Instant::now(), &mut scratch, &mut record);
        assert!(extracted.updated && extracted.failures == 0);
        let read: Vec<(&str, f64)> = record
            .custom
            .iter()
            .map(|(key, value)| (&**key, *value))
            .collect();
        assert_eq!(
            read,
            [
                ("llm-d.ai/multicluster-kv-cache-utilization", 0.25),
                ("llm-d.ai/multicluster-queue-size", 7.0)
            ]
        );
    }

    #[test]
    fn a_wrong_spec_is_named() {
        let parameters = Parameters {
            queue_size_metric: "a{b".to_owned(),
            ..Parameters::default()
        };
        let error = of(&parameters).expect_err("refused").to_string();
        assert!(error.contains("customMetrics"), "{error}");
    }
}
