//! The part of `InferenceModelRewrite` that the picker reads: other model names for requests.
//! Source: llm-d-router, `api/v1alpha2`; the older group is the Gateway API Inference Extension's.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

use crate::inference_objective::PoolRef;

/// Rules that replace the model of a request.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct InferenceModelRewrite {
    /// Name and namespace.
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: InferenceModelRewriteSpec,
}

impl InferenceModelRewrite {
    /// `kind` of the kind.
    pub const KIND: &'static str = "InferenceModelRewrite";
    /// Plural of the kind.
    pub const PLURAL: &'static str = "inferencemodelrewrites";
}

/// What is wanted.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InferenceModelRewriteSpec {
    /// The pool it is meant for.
    pub pool_ref: PoolRef,
    /// In order of precedence.
    #[serde(default)]
    pub rules: Vec<ModelRewriteRule>,
}

/// One rule.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct ModelRewriteRule {
    /// Any of these; empty matches every request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<ModelMatch>,
    /// Where matching requests go.
    #[serde(default)]
    pub targets: Vec<TargetModel>,
}

/// What a request must look like.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct ModelMatch {
    /// Its model name; unset matches every request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelNameMatch>,
}

/// How a model name is compared: `type` is `Exact`, the only one that exists.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct ModelNameMatch {
    /// The name.
    pub value: String,
}

/// One target of a rule.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetModel {
    /// Share of the requests, 1 to 1,000,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<i32>,
    /// Name the engine is asked for.
    pub model_rewrite: String,
}
