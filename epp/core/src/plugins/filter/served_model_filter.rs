//! `served-model-filter`: keeps endpoints that serve the requested model. Not part of upstream.
//!
//! | parameter | default |
//! |---|---|
//! | `label` | `llmd.dev/models` |
//!
//! The label holds the endpoint's model names, separated by commas. Endpoints without it may serve anything. A
//! model that no endpoint lists, and a request without a model, keep everything: the engine's own 404 says which
//! model it does not know.

use llmd_epp_api::plugin::Filter;
use llmd_epp_api::{BuildError, Cycle, Endpoint, Plugin, PluginType, Random, Stability};
use serde::Deserialize;

/// Type name in configurations.
pub const TYPE: &str = "served-model-filter";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Beta,
    default_producer_of: &[],
    build: |context| Ok(Plugin::filter(ServedModelFilter::new(context.parameters()?)?)),
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parameters {
    label: String,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            label: "llmd.dev/models".to_owned(),
        }
    }
}

struct ServedModelFilter {
    label: String,
}

impl ServedModelFilter {
    fn new(parameters: Parameters) -> Result<Self, BuildError> {
        let Parameters { label } = parameters;
        if label.is_empty() {
            return Err(BuildError::value("label", "must not be empty"));
        }
        Ok(Self { label })
    }

    fn serves(&self, endpoint: &Endpoint, model: &str) -> bool {
        endpoint
            .label(&self.label)
            .is_none_or(|models| models.split(',').any(|served| served == model))
    }
}

impl Filter for ServedModelFilter {
    fn filter(&self, cycle: &Cycle<'_>, candidates: &mut Vec<u32>, _random: &Random) {
        let model = &*cycle.request.target_model;
        let endpoints = &cycle.snapshot.endpoints;
        let is_served = |index: &u32| self.serves(&endpoints[*index as usize], model);
        if !model.is_empty() && candidates.iter().any(is_served) {
            candidates.retain(is_served);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::testing::{Pool, build, build_error};

    fn kept(model: &str, with_unlabelled: bool) -> Vec<u32> {
        let mut pool = Pool::of(3).label(0, "m", "a,b").label(1, "m", "b,c");
        if !with_unlabelled {
            pool = pool.label(2, "m", "d");
        }
        pool.request.target_model = model.into();
        pool.filtered(&*build(&PLUGIN, json!({"label": "m"})).filter.unwrap())
    }

    #[test]
    fn requests_go_to_endpoints_that_list_their_model() {
        assert_eq!(kept("a", false), [0]);
        assert_eq!(kept("b", false), [0, 1]);
        assert_eq!(kept("a", true), [0, 2], "no label, any model");
    }

    #[test]
    fn an_unknown_model_keeps_everything_so_that_an_engine_can_answer_404() {
        assert_eq!(kept("x", false), [0, 1, 2]);
        assert_eq!(kept("", false), [0, 1, 2]);
        assert_eq!(kept("ab", false), [0, 1, 2], "names are compared whole");
    }

    #[test]
    fn wrong_parameters_are_named() {
        assert!(build_error(&PLUGIN, json!({"label": ""})).contains("label"));
        assert!(build_error(&PLUGIN, json!({"key": "m"})).contains("key"));
    }
}
