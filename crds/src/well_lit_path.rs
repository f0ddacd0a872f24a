//! `WellLitPath`: a named, versioned, partial LLMDeployment spec.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::deployment::LLMDeploymentSpec;
use crate::status::UsageStatus;

/// A recipe: what an LLMDeployment that names it gets where it says nothing itself.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[kube(
    group = "llmd.dev",
    version = "v1alpha1",
    kind = "WellLitPath",
    plural = "welllitpaths",
    doc = "A recipe that LLMDeployments name: a partial spec under a version.",
    singular = "welllitpath",
    shortname = "wlp",
    category = "llm-d",
    derive = "PartialEq",
    derive = "Default",
    cel,
    validation = Rule::new("!has(self.spec.template.path) && !has(self.spec.template.pathVersion)").message("spec.template.path: a path cannot name a path").field_path(".spec.template"),
    status = "UsageStatus",
    printcolumn = r#"{"name":"Used By","type":"integer","jsonPath":".status.usedBy"}"#,
    printcolumn = r#"{"name":"Version","type":"string","jsonPath":".spec.version"}"#,
    printcolumn = r#"{"name":"Description","type":"string","jsonPath":".spec.description"}"#
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WellLitPathSpec {
    /// Version, such as `v1`.
    #[schemars(length(min = 1, max = 63))]
    pub version: String,
    /// One sentence for lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
    /// What the path was measured or is meant to run on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub hardware: Option<String>,
    /// Table of default images of engines that name none, such as `v1`, which it is where this is absent. A table
    /// never changes: an upgrade of the operator moves no image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub images: Option<String>,
    /// The partial spec.
    pub template: LLMDeploymentSpec,
}
