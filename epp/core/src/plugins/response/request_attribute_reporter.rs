//! `request-attribute-reporter`: reports a number made of a response's usage to the proxy.
//!
//! | parameter | default |
//! |---|---|
//! | `attributes[0].key.namespace` | `envoy.lb` |
//! | `attributes[0].key.name` | required |
//! | `attributes[0].expression` | required; a number over `usage` ([what it may hold](expression)) |
//! | `attributes[0].condition` | none; a truth value over `usage`, false reports nothing |
//!
//! Exactly one attribute, as upstream. The number goes out as dynamic metadata with the last answer of the response, cut
//! to an integer; 0 is not reported.

mod expression;

use std::sync::Arc;
use std::time::Instant;

use llmd_epp_api::plugin::{PreRequest, SchedulingResult};
use llmd_epp_api::{
    BuildContext, BuildError, Cycle, Metadata, MetadataValue, Plugin, PluginType, Rejection, RequestChanges,
    ResponseEnd, ResponseHook, Stability,
};
use llmd_openai::Usage;
use serde::Deserialize;

use expression::{Condition, Number};

/// Type name in configurations.
pub const TYPE: &str = "request-attribute-reporter";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Beta,
    default_producer_of: &[],
    build: |context| {
        Ok(Plugin {
            pre_request: Some(Arc::new(Reporter(Arc::new(Report::new(context)?)))),
            ..Plugin::default()
        })
    },
};

const DEFAULT_NAMESPACE: &str = "envoy.lb";

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Parameters {
    attributes: Vec<Attribute>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Attribute {
    key: Key,
    expression: String,
    condition: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Key {
    namespace: String,
    name: String,
}

/// What is reported and where.
#[derive(Debug)]
struct Report {
    namespace: Arc<str>,
    name: Arc<str>,
    number: Number,
    condition: Option<Condition>,
}

impl Report {
    fn new(context: &BuildContext<'_>) -> Result<Self, BuildError> {
        let Parameters { attributes } = context.parameters()?;
        let [
            Attribute {
                key: Key { namespace, name },
                expression,
                condition,
            },
        ] = &attributes[..]
        else {
            let reason = format!("must have exactly one entry, not {}", attributes.len());
            return Err(BuildError::value("attributes", reason));
        };
        let required = |field: &str, value: &str| match value {
            "" => Err(BuildError::value(field, "must not be empty")),
            _ => Ok(()),
        };
        required("attributes[0].key.name", name)?;
        required("attributes[0].expression", expression)?;
        let wrong = |field: &'static str| move |reason: String| BuildError::value(field, reason);
        let condition = match condition.as_str() {
            "" => None,
            text => Some(Condition::parse(text).map_err(wrong("attributes[0].condition"))?),
        };
        let namespace = match namespace.as_str() {
            "" => DEFAULT_NAMESPACE,
            named => named,
        };
        Ok(Self {
            namespace: namespace.into(),
            name: name.as_str().into(),
            number: Number::parse(expression).map_err(wrong("attributes[0].expression"))?,
            condition,
        })
    }

    /// `None` for what is not reported: no number at all, 0, or the condition does not hold.
    fn of(&self, usage: &Usage) -> Option<Metadata> {
        let holds = |condition: &Condition| condition.of(usage) == Some(true);
        if !self.condition.as_ref().is_none_or(holds) {
            return None;
        }
        let number = self.number.of(usage)?.trunc();
        (number != 0.0 && number.is_finite()).then(|| Metadata {
            namespace: Arc::clone(&self.namespace),
            key: Arc::clone(&self.name),
            value: MetadataValue::Number(number),
        })
    }
}

struct Reporter(Arc<Report>);

impl PreRequest for Reporter {
    fn pre_request(
        &self,
        _: &Cycle<'_>,
        _: SchedulingResult<'_>,
        changes: &mut RequestChanges,
    ) -> Result<(), Rejection> {
        changes.hooks.push(Box::new(AtEnd(Arc::clone(&self.0))));
        Ok(())
    }
}

#[derive(Debug)]
struct AtEnd(Arc<Report>);

impl ResponseHook for AtEnd {
    fn on_complete(&mut self, _: Instant, end: &ResponseEnd, metadata: &mut Vec<Metadata>) {
        metadata.extend(self.0.of(&end.usage));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::plugins::testing::{Pool, build, build_error, changes};

    fn reported(attribute: &Value) -> Vec<Metadata> {
        let plugin = build(&PLUGIN, json!({"attributes": [attribute]}));
        let mut changes = changes(&plugin, &Pool::of(1), &[("default", &[0])], 0);
        let usage = Usage {
            prompt: 7,
            completion: 10,
            total: 17,
            cached: 4,
        };
        let mut metadata = Vec::new();
        changes.hooks[0].on_complete(Instant::now(), &ResponseEnd { usage }, &mut metadata);
        metadata
    }

    #[test]
    fn a_number_goes_out_under_its_key() {
        let attribute = json!({"key": {"name": "x-gateway-inference-request-cost"}, "expression": "usage.completion_tokens"});
        let cost = Metadata {
            namespace: "envoy.lb".into(),
            key: "x-gateway-inference-request-cost".into(),
            value: MetadataValue::Number(10.0),
        };
        assert_eq!(reported(&attribute), [cost]);
        let attribute = json!({
            "key": {"namespace": "ours", "name": "cost"},
            "expression": "usage.prompt_tokens * 0.5",
            "condition": "usage.total_tokens > 16",
        });
        let cost = Metadata {
            namespace: "ours".into(),
            key: "cost".into(),
            value: MetadataValue::Number(3.0),
        };
        assert_eq!(reported(&attribute), [cost]);
    }

    #[test]
    fn nothing_is_reported_without_a_number() {
        for (expression, condition) in [
            ("usage.prompt_tokens - 7", ""),
            ("usage.prompt_tokens * 0.1", ""),
            ("1 / 0", ""),
            ("usage.prompt_tokens / 0.0", ""),
            ("usage.prompt_tokens", "usage.completion_tokens < 10"),
        ] {
            let attribute =
                json!({"key": {"name": "cost"}, "expression": expression, "condition": condition});
            assert_eq!(reported(&attribute), [], "{expression} if {condition}");
        }
    }

    #[test]
    fn wrong_parameters_are_named() {
        let attribute = json!({"key": {"name": "cost"}, "expression": "usage.total_tokens"});
        let cases = [
            (json!({}), "parameters.attributes: must have exactly one"),
            (
                json!({"attributes": [attribute, attribute]}),
                "exactly one entry, not 2",
            ),
            (
                json!({"attributes": [{"expression": "1"}]}),
                "attributes[0].key.name",
            ),
            (
                json!({"attributes": [{"key": {"name": "cost"}}]}),
                "attributes[0].expression",
            ),
            (
                json!({"attributes": [{"key": {"name": "cost"}, "expression": "usage.tokens"}]}),
                "attributes[0].expression: 'usage.tokens'",
            ),
            (
                json!({"attributes": [{"key": {"name": "cost"}, "expression": "1", "condition": "1"}]}),
                "attributes[0].condition",
            ),
        ];
        for (parameters, part) in cases {
            let error = build_error(&PLUGIN, parameters);
            assert!(error.contains(part), "{error}");
        }
    }
}
