//! `GET /v1/models` where endpoints serve different models: one answer with all of them.

use llmd_epp_api::Snapshot;
use serde_json::json;

/// Label with an endpoint's models, separated by commas; `llmd up --engine` sets it and the
/// `served-model-filter` reads it.
const LABEL: &str = "llmd.dev/models";

/// The union of all models as OpenAI lists them; `None` when one endpoint's own answer says it all: when they
/// serve the same models, or when one does not say what it serves.
pub(super) fn list(snapshot: &Snapshot) -> Option<String> {
    let labels: Option<Vec<&str>> = snapshot
        .endpoints
        .iter()
        .map(|endpoint| endpoint.label(LABEL))
        .collect();
    let labels = labels?;
    if labels.windows(2).all(|pair| pair[0] == pair[1]) {
        return None;
    }
    let mut models: Vec<&str> = labels.iter().flat_map(|label| label.split(',')).collect();
    models.sort_unstable();
    models.dedup();
    let data: Vec<_> = models
        .iter()
        .map(|model| json!({"id": model, "object": "model", "created": 0, "owned_by": "llmd"}))
        .collect();
    Some(json!({"object": "list", "data": data}).to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use llmd_epp_api::{Endpoint, EndpointName, EndpointSpec, Slot};

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
