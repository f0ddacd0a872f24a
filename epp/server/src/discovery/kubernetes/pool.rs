//! An `InferencePool` as the picker reads it, in both shapes that it has had.
//! Source: Gateway API Inference Extension, `api/v1` and `apix/v1alpha2`.

use std::collections::BTreeMap;

use kube::core::DynamicObject;
use serde::Deserialize;

/// Which pods, which ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSpec {
    /// Labels that a pod must have; never empty.
    pub labels: BTreeMap<String, String>,
    /// 1 to 8 ports.
    pub ports: Vec<u16>,
    /// `http` or `kubernetes.io/h2c`.
    pub app_protocol: String,
}

/// Why a pool cannot be used. The CRD's schema lets none of these through.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// Not the shape of either version.
    #[error("spec cannot be read: {0}")]
    Shape(String),
    /// It would select every pod.
    #[error("spec.selector names no labels: give at least one")]
    NoLabels,
    /// No request could be sent.
    #[error("spec.targetPorts names no port between 1 and 65535")]
    NoPorts,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    selector: Selector,
    #[serde(default)]
    target_ports: Vec<Port>,
    /// v1alpha2.
    #[serde(default)]
    target_port_number: Option<i64>,
    #[serde(default)]
    app_protocol: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Selector {
    V1 {
        #[serde(rename = "matchLabels")]
        match_labels: BTreeMap<String, String>,
    },
    /// v1alpha2.
    Labels(BTreeMap<String, String>),
}

#[derive(Deserialize)]
struct Port {
    number: i64,
}

impl PoolSpec {
    /// Reads a pool of either version.
    pub fn of(pool: &DynamicObject) -> Result<Self, PoolError> {
        let spec = pool.data.get("spec").cloned().unwrap_or_default();
        let spec: Spec = serde_json::from_value(spec).map_err(|error| PoolError::Shape(error.to_string()))?;
        let labels = match spec.selector {
            Selector::V1 { match_labels } => match_labels,
            Selector::Labels(labels) => labels,
        };
        let numbers = spec.target_ports.iter().map(|port| port.number);
        let ports = numbers.chain(spec.target_port_number);
        let ports: Vec<u16> = ports
            .filter_map(|port| u16::try_from(port).ok().filter(|port| *port > 0))
            .collect();
        match (labels.is_empty(), ports.is_empty()) {
            (true, _) => Err(PoolError::NoLabels),
            (_, true) => Err(PoolError::NoPorts),
            _ => Ok(Self {
                labels,
                ports,
                app_protocol: spec.app_protocol.unwrap_or_else(|| "http".to_owned()),
            }),
        }
    }

    /// Whether a pod with these labels belongs to the pool.
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.labels
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value))
    }

    /// The label selector for the API server.
    pub fn selector(&self) -> String {
        let pairs: Vec<String> = self
            .labels
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        pairs.join(",")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(spec: &Value) -> Result<PoolSpec, PoolError> {
        let object = json!({"metadata": {"name": "p"}, "spec": spec});
        PoolSpec::of(&serde_json::from_value(object).expect("an object"))
    }

    #[test]
    fn both_versions_are_read() {
        let pool = read(&json!({
            "selector": {"matchLabels": {"app": "vllm", "role": "decode"}},
            "targetPorts": [{"number": 8000}, {"number": 8001}],
            "appProtocol": "kubernetes.io/h2c",
            "endpointPickerRef": {"name": "epp"}
        }))
        .expect("v1");
        assert_eq!(
            (pool.ports.as_slice(), pool.app_protocol.as_str()),
            (&[8000, 8001][..], "kubernetes.io/h2c")
        );
        assert_eq!(pool.selector(), "app=vllm,role=decode");

        let old =
            json!({"selector": {"app": "vllm"}, "targetPortNumber": 8000, "extensionRef": {"name": "epp"}});
        let pool = read(&old).expect("v1alpha2");
        assert_eq!(
            (pool.selector().as_str(), pool.ports.as_slice()),
            ("app=vllm", &[8000][..])
        );
        assert_eq!(pool.app_protocol, "http");
    }

    #[test]
    fn a_pool_that_selects_nothing_certain_is_refused() {
        let ports = json!([{"number": 1}]);
        let labels = json!({"matchLabels": {"a": "b"}});
        assert_eq!(
            read(&json!({"selector": {"matchLabels": {}}, "targetPorts": ports})),
            Err(PoolError::NoLabels)
        );
        assert_eq!(
            read(&json!({"selector": labels, "targetPorts": [{"number": 0}, {"number": 65536}]})),
            Err(PoolError::NoPorts)
        );
        assert!(matches!(
            read(&json!({"targetPorts": ports})),
            Err(PoolError::Shape(_))
        ));
    }
}
