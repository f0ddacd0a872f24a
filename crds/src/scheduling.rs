//! Where pods may run.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where pods may run. Classes of the system evict what the cluster itself runs on, so none is taken.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(cel, validation = Rule::new("!has(self.priorityClassName) || !self.priorityClassName.startsWith('system-')").message("priorityClassName: classes of the system are for what the cluster itself needs; name another PriorityClass").field_path(".priorityClassName").reason(Reason::FieldValueForbidden))]
pub struct Scheduling {
    /// Labels a node must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::string_map::<32, 63>")]
    pub node_selector: Option<BTreeMap<String, String>>,
    /// Taints the pods tolerate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub tolerations: Option<Vec<Toleration>>,
    /// PriorityClass of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
}

/// A taint that is tolerated.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(cel, validation = Rule::new("!(has(self.operator) && self.operator == 'Exists' && has(self.value))").message("operator Exists takes no value").field_path(".value").reason(Reason::FieldValueForbidden))]
pub struct Toleration {
    /// Key of the taint; unset with `Exists` tolerates all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 317))]
    pub key: Option<String>,
    /// How key and value are compared; `Equal` when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<TolerationOperator>,
    /// Value of the taint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub value: Option<String>,
    /// Effect of the taint; unset tolerates all effects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<TolerationEffect>,
}

/// How a toleration compares.
#[derive(JsonSchema, Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum TolerationOperator {
    /// The key is enough.
    Exists,
    /// Key and value must be equal.
    Equal,
}

/// Effect of a taint.
#[derive(JsonSchema, Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum TolerationEffect {
    /// New pods stay away.
    NoSchedule,
    /// New pods stay away if possible.
    PreferNoSchedule,
    /// Running pods are evicted too.
    NoExecute,
}
