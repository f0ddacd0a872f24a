//! `AcceleratorProfile`: where one kind of accelerator is found and what a node holds.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::scheduling::Toleration;
use crate::status::UsageStatus;

/// One kind of accelerator.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[kube(
    group = "llmd.dev",
    version = "v1alpha1",
    kind = "AcceleratorProfile",
    plural = "acceleratorprofiles",
    doc = "One kind of accelerator: its resource, its nodes, how many a node has.",
    singular = "acceleratorprofile",
    shortname = "accp",
    category = "llm-d",
    derive = "PartialEq",
    derive = "Default",
    status = "UsageStatus",
    printcolumn = r#"{"name":"Used By","type":"integer","jsonPath":".status.usedBy"}"#,
    printcolumn = r#"{"name":"Resource","type":"string","jsonPath":".spec.resourceName"}"#,
    printcolumn = r#"{"name":"Per Node","type":"integer","jsonPath":".spec.acceleratorsPerNode"}"#
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AcceleratorProfileSpec {
    /// Resource that a device plugin offers, such as `nvidia.com/gpu`.
    #[schemars(length(min = 1, max = 253))]
    pub resource_name: String,
    /// Accelerators of one node: no engine may ask for more.
    #[schemars(range(min = 1, max = 1024))]
    pub accelerators_per_node: i32,
    /// Labels of the nodes that have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::string_map::<32, 63>")]
    pub node_selector: Option<BTreeMap<String, String>>,
    /// Taints of the nodes that have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub tolerations: Option<Vec<Toleration>>,
}
