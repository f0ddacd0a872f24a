//! The part of `InferencePool` (`inference.networking.k8s.io/v1`) that we write.
//! Source: kubernetes-sigs/gateway-api-inference-extension, `api/v1/inferencepool_types.go`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

use crate::router::FailureMode;

/// Pods that serve a model, and who picks among them.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InferencePool {
    /// Name, namespace, labels.
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: InferencePoolSpec,
}

impl InferencePool {
    /// `apiVersion` of the kind.
    pub const API_VERSION: &'static str = "inference.networking.k8s.io/v1";
    /// `kind` of the kind.
    pub const KIND: &'static str = "InferencePool";
}

/// What is wanted.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InferencePoolSpec {
    /// Which pods.
    pub selector: PoolSelector,
    /// Ports of a pod, 1 to 8.
    pub target_ports: Vec<TargetPort>,
    /// `http` or `kubernetes.io/h2c`.
    pub app_protocol: String,
    /// Who picks.
    pub endpoint_picker_ref: EndpointPickerRef,
}

/// Which pods.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolSelector {
    /// Labels that a pod must have, 1 to 64.
    pub match_labels: BTreeMap<String, String>,
}

/// One port of a pod.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetPort {
    /// Port number.
    pub number: i32,
}

/// Who picks: a Service.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointPickerRef {
    /// Name of the Service.
    pub name: String,
    /// Its ext-proc port.
    pub port: PickerPort,
    /// What happens when it does not answer.
    pub failure_mode: FailureMode,
}

impl Default for EndpointPickerRef {
    fn default() -> Self {
        // FailClose is the API's default.
        Self {
            name: String::new(),
            port: PickerPort::default(),
            failure_mode: FailureMode::FailClose,
        }
    }
}

/// Port of the picker.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PickerPort {
    /// Port number.
    pub number: i32,
}
