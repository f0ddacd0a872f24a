//! Endpoint Picker and proxy.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::gateway::RouterGateway;
use crate::pool::Resources;
use crate::schema::any_object;

/// Endpoint Picker and what is in front of it.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    cel,
    validation = Rule::new("(has(self.mode) && self.mode == 'Gateway') == has(self.gateway)").message("gateway: goes with mode Gateway; give it parentRefs, or leave both out").field_path(".gateway").reason(Reason::FieldValueInvalid),
    validation = Rule::new("!(has(self.mode) && self.mode == 'Gateway' && has(self.proxy))").message("proxy: in mode Gateway the gateway is the proxy").field_path(".proxy").reason(Reason::FieldValueForbidden)
)]
pub struct Router {
    /// What is in front of the engines: a proxy of their own, or Gateways of the cluster. Unset: Standalone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<RouterMode>,
    /// Gateways, in mode Gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<RouterGateway>,
    /// The Endpoint Picker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epp: Option<Epp>,
    /// What a gateway does when the Endpoint Picker does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_mode: Option<FailureMode>,
    /// The proxy in front of the engines, in mode Standalone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Proxy>,
}

/// What is in front of the engines.
#[derive(JsonSchema, Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum RouterMode {
    /// A proxy beside the Endpoint Picker; no foreign kinds are needed.
    Standalone,
    /// Gateways that know InferencePool (Gateway API Inference Extension).
    Gateway,
}

/// The Endpoint Picker.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    cel,
    validation = Rule::new("!has(self.flags) || self.flags.all(k, !(k in ['pool-name', 'pool-namespace', 'pool-group', 'endpoint-selector', 'endpoint-target-ports', 'config-file', 'config-text', 'grpc-port', 'grpc-health-port', 'metrics-port', 'proxy-port', 'proxy-bind-address', 'proxy-api-key-file', 'drain-envoy-admin-port', 'kubeconfig', 'ha-enable-leader-election']))").message("flags: this flag is set by the operator").field_path(".flags").reason(Reason::FieldValueForbidden),
    validation = Rule::new("!has(self.flags) || self.flags.all(k, k.matches('^[A-Za-z0-9][A-Za-z0-9_-]*$'))").message("flags: write the flag without its leading dashes, and its value after the colon").field_path(".flags").reason(Reason::FieldValueInvalid)
)]
pub struct Epp {
    /// Container image in place of the operator's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// CPU and memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Further flags without dashes, as llm-d's Endpoint Picker has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::string_map::<64, 1024>")]
    pub flags: Option<BTreeMap<String, String>>,
    /// EndpointPickerConfig in place of the path's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<EppConfig>,
}

/// Where the Endpoint Picker's configuration comes from.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EppConfig {
    /// An EndpointPickerConfig object.
    #[schemars(schema_with = "any_object")]
    pub inline: serde_json::Value,
}

/// What a gateway does when the Endpoint Picker does not answer.
#[derive(JsonSchema, Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum FailureMode {
    /// Send the request to any engine.
    FailOpen,
    /// Refuse the request.
    FailClose,
}

/// The proxy in front of the engines.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    cel,
    validation = Rule::new("!(has(self.type) && self.type == 'Builtin' && has(self.image))").message("image: the built-in proxy is part of the Endpoint Picker and has no image of its own").field_path(".image").reason(Reason::FieldValueForbidden),
    validation = Rule::new("!(has(self.type) && self.type == 'Builtin' && has(self.failOpen))").message("failOpen: the built-in proxy cannot outlive the Endpoint Picker").field_path(".failOpen").reason(Reason::FieldValueForbidden)
)]
pub struct Proxy {
    /// Which proxy.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<ProxyType>,
    /// Let requests pass unrouted when the Endpoint Picker does not answer (Envoy's `failure_mode_allow`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail_open: Option<bool>,
    /// Envoy's image in place of the path's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
}

/// Which proxy.
#[derive(JsonSchema, Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum ProxyType {
    /// Envoy beside the Endpoint Picker.
    Envoy,
    /// The Endpoint Picker's own proxy.
    Builtin,
}
