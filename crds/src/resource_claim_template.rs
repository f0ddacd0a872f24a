//! The part of `ResourceClaimTemplate` (`resource.k8s.io/v1`, Kubernetes 1.34) that we write.
//! Source: kubernetes v1.34, `staging/src/k8s.io/api/resource/v1/types.go`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

/// What each pod claims.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceClaimTemplate {
    /// Name, namespace, labels.
    pub metadata: ObjectMeta,
    /// Cannot be changed.
    pub spec: ResourceClaimTemplateSpec,
}

impl ResourceClaimTemplate {
    /// API group of the kind.
    pub const GROUP: &'static str = "resource.k8s.io";
    /// `apiVersion` of the kind.
    pub const API_VERSION: &'static str = "resource.k8s.io/v1";
    /// `kind` of the kind.
    pub const KIND: &'static str = "ResourceClaimTemplate";
}

/// What a claim of it is.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceClaimTemplateSpec {
    /// The claim.
    pub spec: ResourceClaimSpec,
}

/// A claim.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceClaimSpec {
    /// Its devices.
    pub devices: DeviceClaim,
}

/// Devices, and what they must have in common.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceClaim {
    /// All are served, or none.
    pub requests: Vec<DeviceRequest>,
    /// What they must have in common.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub constraints: Vec<DeviceConstraint>,
}

/// Some devices of one class.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceRequest {
    /// Name in constraints.
    pub name: String,
    /// Which, and how many.
    pub exactly: ExactDeviceRequest,
}

/// Which devices, and how many.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExactDeviceRequest {
    /// Their class.
    pub device_class_name: String,
    /// `ExactCount`.
    pub allocation_mode: String,
    /// How many.
    pub count: i32,
}

/// What devices must have in common.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceConstraint {
    /// Names of requests.
    pub requests: Vec<String>,
    /// Their attribute with the same value.
    pub match_attribute: String,
}
