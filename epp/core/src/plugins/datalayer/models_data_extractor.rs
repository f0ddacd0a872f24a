//! `models-data-extractor`: the models that an endpoint lists.
//!
//! No parameters. The `data` of `/v1/models` as it is; the debug page shows it.

use std::sync::Arc;

use llmd_epp_api::registry::Component;
use llmd_epp_api::{ListedModel, MetricsRecord, Plugin, PluginType, Stability};
use serde::Deserialize;

use super::core_metrics_extractor::{Extracted, SpecFailure};
use super::reader::PageReader;

/// Type name in configurations.
pub const TYPE: &str = "models-data-extractor";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Beta,
    default_producer_of: &[],
    build: |context| {
        context.no_parameters()?;
        Ok(Plugin::component(Component::Extractor(Arc::new(
            PageReader::Models,
        ))))
    },
};

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    data: Vec<ListedModel>,
}

/// Reads one list.
pub fn extract(page: &[u8], record: &mut MetricsRecord) -> Extracted<'static> {
    let Ok(List { data }) = serde_json::from_slice(page) else {
        return Extracted::failed(SpecFailure {
            field: "data",
            spec: "/v1/models",
            reason: "the page is no list of models",
        });
    };
    if *record.models != *data {
        record.models = data.into();
    }
    Extracted::read()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_kept_as_it_is() {
        let page = br#"{"object":"list","data":[{"id":"base","object":"model","created":7,"owned_by":"vllm","max_model_len":4096},
            {"id":"lora","parent":"base"}]}"#;
        let mut record = MetricsRecord::default();
        assert!(extract(page, &mut record).updated);
        let [base, lora] = &*record.models else {
            unreachable!("two models")
        };
        assert_eq!((&*base.id, base.created, &*base.owned_by), ("base", 7, "vllm"));
        assert_eq!((&*lora.id, &*lora.parent), ("lora", "base"));
        let failure = extract(b"<html>", &mut record).first_failure;
        assert_eq!(
            failure.map(|failure| failure.reason),
            Some("the page is no list of models")
        );
        assert_eq!(record.models.len(), 2, "what was known stays");
    }
}
