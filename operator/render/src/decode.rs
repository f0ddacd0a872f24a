//! YAML text to typed resources; an unknown field is an error that names its place.

use llmd_crds::{AcceleratorProfile, LLMDeployment, WellLitPath};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::field_error::{FieldError, Problem};

/// Most documents of one text.
const DOCUMENTS: usize = 10_000;

/// A resource of ours.
#[derive(Clone, Debug, PartialEq)]
pub enum Document {
    /// A served model.
    Deployment(Box<LLMDeployment>),
    /// A recipe.
    Path(Box<WellLitPath>),
    /// A kind of accelerator.
    Accelerator(Box<AcceleratorProfile>),
}

/// Why a text is not a list of our resources.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not YAML; the message has line and column.
    #[error("not valid YAML: {0}")]
    Yaml(#[from] serde_yaml::Error),
    /// The text has no document.
    #[error("no resource in it: expected a YAML document with apiVersion, kind, metadata and spec")]
    Empty,
    /// More documents than any fleet needs.
    #[error("more than {DOCUMENTS} documents")]
    TooMany,
    /// One document is wrong.
    #[error("document {index} ({name}): {error}")]
    Document {
        /// Number of the document, from 1.
        index: usize,
        /// Kind and name as far as known.
        name: String,
        /// What is wrong.
        error: Box<FieldError>,
    },
}

/// Decodes all documents of a text; empty documents are skipped.
///
/// # Errors
/// The first document that is not one of our kinds, with the field and the nearest right name.
pub fn decode(text: &str) -> Result<Vec<Document>, DecodeError> {
    let mut documents = Vec::new();
    for (index, document) in serde_yaml::Deserializer::from_str(text).enumerate() {
        if index >= DOCUMENTS {
            return Err(DecodeError::TooMany);
        }
        let value = Value::deserialize(document)?;
        if value.is_null() {
            continue;
        }
        let named = describe(&value);
        let decoded = decode_value(value).map_err(|error| DecodeError::Document {
            index: index + 1,
            name: named,
            error: Box::new(error),
        })?;
        documents.push(decoded);
    }
    if documents.is_empty() {
        Err(DecodeError::Empty)
    } else {
        Ok(documents)
    }
}

fn describe(value: &Value) -> String {
    let text = |pointer| {
        value
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or("unnamed")
    };
    format!("{} {}", text("/kind"), text("/metadata/name"))
}

/// Decodes one resource.
///
/// # Errors
/// The first mistake, with the field and the nearest right name.
pub fn decode_value(value: Value) -> Result<Document, FieldError> {
    const API: &str = "llmd.dev/v1alpha1";
    const KINDS: [&str; 3] = ["LLMDeployment", "WellLitPath", "AcceleratorProfile"];
    const MEMBERS: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];
    let Value::Object(object) = &value else {
        return Err(FieldError::new(
            "(document)",
            Problem::Invalid,
            "expected a mapping with apiVersion and kind",
        ));
    };
    for member in object.keys() {
        if !MEMBERS.contains(&member.as_str()) {
            return Err(FieldError::new(member, Problem::Unknown, "no such field").nearest(member, MEMBERS));
        }
    }
    let text = |name: &str| {
        object
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let (version, kind) = (text("apiVersion"), text("kind"));
    if version != API {
        let message = format!("expected {API}");
        return Err(FieldError::new("apiVersion", Problem::Invalid, message).value(&version));
    }
    if value
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .is_none_or(str::is_empty)
    {
        return Err(FieldError::new(
            "metadata.name",
            Problem::Required,
            "give the resource a name",
        ));
    }
    match kind.as_str() {
        "LLMDeployment" => typed(value).map(Box::new).map(Document::Deployment),
        "WellLitPath" => typed(value).map(Box::new).map(Document::Path),
        "AcceleratorProfile" => typed(value).map(Box::new).map(Document::Accelerator),
        _ => {
            let message = format!("expected one of {}", KINDS.join(", "));
            Err(FieldError::new("kind", Problem::Invalid, message)
                .value(&kind)
                .nearest(&kind, KINDS))
        }
    }
}

fn typed<T: DeserializeOwned>(value: Value) -> Result<T, FieldError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let message = error.into_inner().to_string();
        explain(&path, &message)
    })
}

/// serde's texts carry the names in backquotes: ``unknown field `modle`, expected one of `model`, …``.
fn explain(path: &str, message: &str) -> FieldError {
    let mut quoted = message.split('`').skip(1).step_by(2);
    if message.starts_with("unknown field") {
        let given = quoted.next().unwrap_or_default().to_owned();
        let known: Vec<&str> = quoted.collect();
        let field = if path.ends_with(&given) {
            path.to_owned()
        } else {
            format!("{path}.{given}")
        };
        let message = format!("no such field; known here: {}", known.join(", "));
        return FieldError::new(field, Problem::Unknown, message).nearest(&given, known);
    }
    if message.starts_with("unknown variant") {
        let given = quoted.next().unwrap_or_default().to_owned();
        let known: Vec<&str> = quoted.collect();
        let message = format!("expected one of {}", known.join(", "));
        return FieldError::new(path, Problem::Invalid, message)
            .value(&given)
            .nearest(&given, known);
    }
    if let Some(rest) = message.strip_prefix("missing field") {
        let field = format!("{path}.{}", rest.trim().trim_matches('`'));
        return FieldError::new(
            field.trim_start_matches('.'),
            Problem::Required,
            "this field is required",
        );
    }
    FieldError::new(path, Problem::Invalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        decode(text).unwrap_err().to_string()
    }

    #[test]
    fn mistakes_are_named_with_the_nearest_right_name() {
        let head = "apiVersion: llmd.dev/v1alpha1\nkind: LLMDeployment\nmetadata: {name: a}\n";
        let text = error(&format!("{head}spec: {{modle: {{uri: x}}}}"));
        assert!(
            text.contains("spec.modle: no such field") && text.contains("did you mean \"model\"?"),
            "{text}"
        );
        let text = error(&format!("{head}spec: {{pools: [{{name: a, acelerator: {{}}}}]}}"));
        assert!(
            text.contains("spec.pools[0].acelerator") && text.contains("\"accelerator\""),
            "{text}"
        );
        let text = error(&format!("{head}spec: {{engine: {{type: vllm}}}}"));
        assert!(
            text.contains("spec.engine.type: \"vllm\": expected one of Vllm, Sglang, Simulator"),
            "{text}"
        );
        let text = error(&format!("{head}spec: {{replicas: many}}"));
        assert!(text.contains("spec.replicas") && text.contains("many"), "{text}");
        let text = error(&format!("{head}sepc: {{}}"));
        assert!(
            text.contains("sepc: no such field") && text.contains("\"spec\""),
            "{text}"
        );
        assert!(error("kind: X").contains("apiVersion"));
        assert!(error("a: [").contains("not valid YAML"));
        assert!(error("# nothing\n").contains("no resource"));
    }

    #[test]
    fn several_documents_are_decoded_in_order() {
        let text = "---\napiVersion: llmd.dev/v1alpha1\nkind: LLMDeployment\nmetadata: {name: a}\nspec: {model: {name: m}}\n---\n\
                    apiVersion: llmd.dev/v1alpha1\nkind: AcceleratorProfile\nmetadata: {name: h100}\n\
                    spec: {resourceName: nvidia.com/gpu, acceleratorsPerNode: 8}\n";
        let documents = decode(text).unwrap();
        assert!(matches!(
            documents[..],
            [Document::Deployment(_), Document::Accelerator(_)]
        ));
    }
}
