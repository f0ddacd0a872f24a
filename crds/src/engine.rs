//! How an engine runs.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::env::EnvVar;

/// How an engine runs. Flags that the operator sets itself are refused in `args`: a value from the
/// user would contradict ports and selectors.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    cel,
    validation = Rule::new("!has(self.args) || self.args.all(k, !(k.replace('_', '-') in ['model', 'host', 'port', 'served-model-name', 'tensor-parallel-size', 'block-size', 'kv-transfer-config', 'ec-transfer-config', 'enable-expert-parallel', 'revision', 'trust-remote-code', 'shutdown-timeout', 'model-path', 'page-size', 'pipeline-parallel-size', 'nnodes', 'node-rank', 'master-addr', 'dist-init-addr', 'headless', 'tp-size', 'pp-size', 'dp-size', 'ep-size', 'enable-hierarchical-cache', 'hicache-size'] || k.replace('_', '-').startsWith('data-parallel-') || k.replace('_', '-').startsWith('disaggregation-')))").message("args: this flag is set by the operator; use the field of the resource instead (model, parallelism, kv, rollout)").field_path(".args").reason(Reason::FieldValueForbidden),
    validation = Rule::new("!has(self.args) || self.args.all(k, !k.startsWith('-') && !k.contains('='))").message("args: write the flag without its leading dashes, and its value after the colon").field_path(".args").reason(Reason::FieldValueInvalid)
)]
pub struct Engine {
    /// Which engine.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<EngineType>,
    /// Container image in place of the path's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// When the image is pulled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<ImagePullPolicy>,
    /// Flags without dashes; an empty value makes a bare flag. Merged by key over the path's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::string_map::<128, 4096>")]
    pub args: Option<BTreeMap<String, String>>,
    /// Flags of the path to leave out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    pub remove_args: Option<Vec<String>>,
    /// Arguments appended as they are, last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(max = 4096)))]
    pub extra_args: Option<Vec<String>>,
    /// Environment, merged by name over the path's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub env: Option<Vec<EnvVar>>,
    /// How long loading the model may take, such as `1h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub startup_timeout: Option<String>,
}

/// Which engine.
#[derive(JsonSchema, Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum EngineType {
    /// vLLM.
    Vllm,
    /// SGLang.
    Sglang,
    /// llmd's simulator: no GPU, no weights.
    Simulator,
}

/// When an image is pulled.
#[derive(JsonSchema, Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum ImagePullPolicy {
    /// At every start.
    Always,
    /// When the node does not have it.
    IfNotPresent,
    /// The node must have it.
    Never,
}
