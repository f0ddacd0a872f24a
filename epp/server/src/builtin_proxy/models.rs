//! `GET /v1/models` where endpoints serve different models: one answer with all of them.
//!
//! What an endpoint serves is what it lists itself, adapters included, where `models-data-source` asks it;
//! else what its label says.

use std::collections::BTreeMap;

use llmd_epp_api::{ListedModel, Snapshot};
use serde_json::{Value, json};

/// Label with an endpoint's models, separated by commas; `llmd up --engine` sets it and the
/// `served-model-filter` reads it.
const LABEL: &str = "llmd.dev/models";

/// The union of all models as OpenAI lists them; `None` when one endpoint's own answer says it all: when they
/// serve the same models, or when nothing but labels is known and one has none.
pub(super) fn list(snapshot: &Snapshot) -> Option<String> {
    let served: Vec<Vec<Value>> = (0..snapshot.len()).map(|index| served(snapshot, index)).collect();
    let is_asked = snapshot.records.iter().any(|record| !record.models.is_empty());
    let is_known = is_asked || served.iter().all(|models| !models.is_empty());
    let by_id = |models: &[Value]| -> BTreeMap<String, Value> {
        let named = models.iter().filter_map(|model| {
            let id = model["id"].as_str()?;
            Some((id.to_owned(), model.clone()))
        });
        named.collect()
    };
    let ids = |models: &[Value]| by_id(models).into_keys().collect::<Vec<_>>();
    if !is_known || served.windows(2).all(|pair| ids(&pair[0]) == ids(&pair[1])) {
        return None;
    }
    let data: Vec<Value> = by_id(&served.concat()).into_values().collect();
    Some(json!({"object": "list", "data": data}).to_string())
}

/// What one endpoint serves; empty when it does not say.
fn served(snapshot: &Snapshot, index: usize) -> Vec<Value> {
    let listed = &snapshot.records[index].models;
    if !listed.is_empty() {
        return listed.iter().map(entry).collect();
    }
    let label = snapshot.endpoints[index].label(LABEL);
    let names = label.into_iter().flat_map(|label| label.split(','));
    let model = |id: &str| json!({"id": id, "object": "model", "created": 0, "owned_by": "llmd"});
    names.map(model).collect()
}

fn entry(model: &ListedModel) -> Value {
    let ListedModel {
        id,
        object: _,
        created,
        owned_by,
        parent,
    } = model;
    let mut entry = json!({"id": id, "object": "model", "created": created, "owned_by": owned_by});
    if !parent.is_empty() {
        entry["parent"] = json!(parent);
    }
    entry
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use llmd_epp_api::{Endpoint, EndpointName, EndpointSpec, MetricsRecord, Slot};

    use super::*;

    fn pool(models: &[Option<&str>]) -> Snapshot {
        let member = |(index, models): (usize, Option<&str>)| {
            let spec = EndpointSpec {
                name: EndpointName::new("default", format!("e{index}")),
                pod: format!("e{index}").into(),
                address: [127, 0, 0, 1].into(),
                port: 8000,
                rank: 0,
                reach: llmd_epp_api::Reach::default(),
                labels: models
                    .map(|models| (LABEL.to_owned(), models.to_owned()))
                    .into_iter()
                    .collect(),
            };
            (
                Arc::new(Endpoint::new(spec, Slot::detached(index as u32))),
                Arc::default(),
            )
        };
        Snapshot::new(1, models.iter().copied().enumerate().map(member).collect())
    }

    /// Each endpoint with what it lists itself: names, and adapters behind a slash.
    fn asked(lists: &[&[&str]]) -> Snapshot {
        let mut pool = pool(&vec![None; lists.len()]);
        let model = |name: &&str| match name.split_once('/') {
            Some((parent, id)) => ListedModel {
                id: id.to_owned(),
                parent: parent.to_owned(),
                ..ListedModel::default()
            },
            None => ListedModel {
                id: (*name).to_owned(),
                created: 7,
                owned_by: "vllm".to_owned(),
                ..ListedModel::default()
            },
        };
        pool.records = lists
            .iter()
            .map(|names| {
                let models = names.iter().map(model).collect();
                Arc::new(MetricsRecord {
                    models,
                    ..MetricsRecord::default()
                })
            })
            .collect();
        pool
    }

    #[test]
    fn adapters_of_every_endpoint_that_was_asked_are_listed() {
        // The third one has not answered yet.
        let text = list(&asked(&[&["base", "base/one"], &["base", "base/two"], &[]])).unwrap();
        let page: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            page["data"],
            json!([
                {"id": "base", "object": "model", "created": 7, "owned_by": "vllm"},
                {"id": "one", "object": "model", "created": 0, "owned_by": "", "parent": "base"},
                {"id": "two", "object": "model", "created": 0, "owned_by": "", "parent": "base"},
            ])
        );
        // Their own answers have more in them.
        assert_eq!(
            list(&asked(&[&["base", "base/one"], &["base/one", "base"]])),
            None
        );
    }

    #[test]
    fn different_models_are_listed_together_each_once() {
        let text = list(&pool(&[Some("b,a"), Some("b,c")])).unwrap();
        let page: serde_json::Value = serde_json::from_str(&text).unwrap();
        let ids: Vec<&str> = page["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| m["id"].as_str().unwrap())
            .collect();
        assert_eq!(ids, ["a", "b", "c"]);
        assert_eq!(page["object"], "list");
    }

    #[test]
    fn an_engine_answers_where_its_answer_is_the_whole_one() {
        assert_eq!(list(&pool(&[Some("a"), Some("a")])), None);
        assert_eq!(list(&pool(&[Some("a"), None])), None);
        assert_eq!(list(&pool(&[])), None);
    }
}
