//! Dynamic metadata for Envoy: the destination, scores, and what plugins report.

use std::collections::BTreeMap;
use std::sync::Arc;

use llmd_epp_api::{Metadata, MetadataValue};
use llmd_openai::header;
use prost_types::value::Kind;
use prost_types::{Struct, Value};

/// Namespace of the load balancer's dynamic metadata.
pub(super) const LB_NAMESPACE: &str = "envoy.lb";
const SCORES: &str = "x-gateway-destination-endpoint-scores";

/// Of the answer to a request's head.
pub(super) fn of_request(
    destination: &str,
    scores: Option<Vec<(Arc<str>, f64)>>,
    others: &[Metadata],
) -> Struct {
    let mut all = of_plugins(others);
    let lb = all.fields.entry(LB_NAMESPACE.to_owned());
    let lb = lb.or_insert_with(|| value(Kind::StructValue(Struct::default())));
    if let Some(Kind::StructValue(lb)) = &mut lb.kind {
        let destination = value(Kind::StringValue(destination.to_owned()));
        lb.fields.insert(header::DESTINATION.to_owned(), destination);
        if let Some(scores) = scores {
            let fields = scores
                .into_iter()
                .map(|(target, score)| (String::from(&*target), value(Kind::NumberValue(score))));
            let scores = Struct {
                fields: fields.collect(),
            };
            lb.fields
                .insert(SCORES.to_owned(), value(Kind::StructValue(scores)));
        }
    }
    all
}

/// By namespace; the last value of a key wins.
pub(super) fn of_plugins(entries: &[Metadata]) -> Struct {
    let mut namespaces: BTreeMap<String, Struct> = BTreeMap::new();
    for Metadata {
        namespace,
        key,
        value: entry,
    } in entries
    {
        let kind = match entry {
            MetadataValue::Text(text) => Kind::StringValue(text.to_string()),
            MetadataValue::Number(number) => Kind::NumberValue(*number),
        };
        let namespace = namespaces.entry(namespace.to_string()).or_default();
        namespace.fields.insert(key.to_string(), value(kind));
    }
    let fields = namespaces
        .into_iter()
        .map(|(namespace, entries)| (namespace, value(Kind::StructValue(entries))));
    Struct {
        fields: fields.collect(),
    }
}

fn value(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text<'a>(of: &'a Struct, namespace: &str, key: &str) -> Option<&'a str> {
        let Some(Kind::StructValue(entries)) = &of.fields.get(namespace)?.kind else {
            return None;
        };
        match &entries.fields.get(key)?.kind {
            Some(Kind::StringValue(text)) => Some(text),
            _ => None,
        }
    }

    #[test]
    fn what_plugins_report_is_merged_with_the_destination() {
        let entry = |namespace: &str, key: &str, value: &str| Metadata {
            namespace: namespace.into(),
            key: key.into(),
            value: MetadataValue::Text(value.into()),
        };
        let others = [
            entry("envoy.lb", "rank", "3"),
            entry("other", "a", "1"),
            entry("other", "a", "2"),
        ];
        let all = of_request("10.0.0.1:8000", None, &others);
        assert_eq!(text(&all, "envoy.lb", header::DESTINATION), Some("10.0.0.1:8000"));
        assert_eq!(text(&all, "envoy.lb", "rank"), Some("3"));
        assert_eq!(text(&all, "other", "a"), Some("2"));
    }
}
