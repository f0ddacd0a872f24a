//! The router's configuration for attached engines: only what every engine lets the router see is scored.

use serde_json::{Value, json};

use super::detect::{Engine, EngineType};
use super::{MODELS_LABEL, models_differ};

/// An `EndpointPickerConfig` for `engines`.
///
/// A score that only some engines have would make the others look idle, so queue and KV-cache use count only when
/// all engines show them. Prefix affinity always counts, and prompts without a match go to the engine that got one
/// longest ago, so that a burst between two scrapes spreads.
pub fn router_config(engines: &[Engine]) -> Value {
    let all_metrics = engines.iter().all(|engine| engine.metrics);
    let any_metrics = engines.iter().any(|engine| engine.metrics);
    let mut scorers = vec![("prefix-cache-scorer", 3), ("no-hit-lru-scorer", 2)];
    if all_metrics {
        scorers.extend([("queue-scorer", 2), ("kv-cache-utilization-scorer", 2)]);
    } else {
        scorers.push(("active-request-scorer", 2));
    }
    let mut plugins: Vec<Value> = Vec::new();
    let mut profile: Vec<Value> = Vec::new();
    if models_differ(engines) {
        plugins.push(json!({"type": "served-model-filter", "parameters": {"label": MODELS_LABEL}}));
        profile.push(json!({"pluginRef": "served-model-filter"}));
    }
    for (scorer, weight) in scorers {
        plugins.push(json!({"type": scorer}));
        profile.push(json!({"pluginRef": scorer, "weight": weight}));
    }
    plugins.push(json!({"type": "max-score-picker"}));
    profile.push(json!({"pluginRef": "max-score-picker"}));
    let mut data_layer = json!({"injectDefaults": false});
    if any_metrics {
        plugins.push(json!({"type": "metrics-data-source"}));
        plugins.push(json!({"type": "core-metrics-extractor", "parameters": extractor_parameters(engines)}));
        data_layer["sources"] = json!([{
            "pluginRef": "metrics-data-source",
            "extractors": [{"pluginRef": "core-metrics-extractor"}],
        }]);
    }
    json!({
        "apiVersion": "llm-d.ai/v1alpha1",
        "kind": "EndpointPickerConfig",
        "plugins": plugins,
        "schedulingProfiles": [{"name": "default", "plugins": profile}],
        "dataLayer": data_layer,
    })
}

/// Metric names of llama.cpp's server (`--metrics`), which are not built into the extractor.
fn extractor_parameters(engines: &[Engine]) -> Value {
    if !engines.iter().any(|engine| engine.kind == EngineType::LlamaCpp) {
        return json!({});
    }
    json!({"engineConfigs": [{
        "name": EngineType::LlamaCpp.label(),
        "queuedRequestsSpec": "llamacpp:requests_deferred",
        "runningRequestsSpec": "llamacpp:requests_processing",
        "kvUsageSpec": "llamacpp:kv_cache_usage_ratio",
    }]})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine(kind: EngineType, model: &str, metrics: bool) -> Engine {
        Engine {
            url: String::new(),
            address: "127.0.0.1:1".parse().unwrap(),
            kind,
            version: None,
            models: vec![model.into()],
            metrics,
        }
    }

    fn types(config: &Value) -> Vec<&str> {
        config["plugins"]
            .as_array()
            .unwrap()
            .iter()
            .map(|plugin| plugin["type"].as_str().unwrap())
            .collect()
    }

    #[test]
    fn load_scores_count_only_when_every_engine_shows_its_load() {
        let all = router_config(&[
            engine(EngineType::Vllm, "m", true),
            engine(EngineType::Sglang, "m", true),
        ]);
        assert!(types(&all).contains(&"queue-scorer") && !types(&all).contains(&"active-request-scorer"));
        let mixed = router_config(&[
            engine(EngineType::Vllm, "m", true),
            engine(EngineType::Ollama, "m", false),
        ]);
        assert!(!types(&mixed).contains(&"queue-scorer") && types(&mixed).contains(&"active-request-scorer"));
        assert!(
            types(&mixed).contains(&"metrics-data-source"),
            "the live table still shows what there is"
        );
        let none = router_config(&[engine(EngineType::Ollama, "m", false)]);
        assert!(!types(&none).contains(&"metrics-data-source"));
        assert_eq!(none["dataLayer"]["injectDefaults"], false);
    }

    #[test]
    fn engines_with_different_models_are_filtered_by_model() {
        let same = router_config(&[
            engine(EngineType::Vllm, "m", true),
            engine(EngineType::Vllm, "m", true),
        ]);
        assert!(!types(&same).contains(&"served-model-filter"));
        let differ = router_config(&[
            engine(EngineType::Vllm, "m", true),
            engine(EngineType::Vllm, "n", true),
        ]);
        assert_eq!(
            differ["schedulingProfiles"][0]["plugins"][0]["pluginRef"],
            "served-model-filter"
        );
    }

    #[test]
    fn llama_cpp_gets_its_metric_names() {
        let config = router_config(&[engine(EngineType::LlamaCpp, "m", true)]);
        let extractor = config["plugins"].as_array().unwrap().last().unwrap();
        assert_eq!(
            extractor["parameters"]["engineConfigs"][0]["queuedRequestsSpec"],
            "llamacpp:requests_deferred"
        );
    }
}
