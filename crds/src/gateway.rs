//! `router.gateway`: which Gateways lead to the model.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which Gateways lead to the model, and for which requests.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouterGateway {
    /// Gateways, or single listeners of them.
    #[schemars(length(min = 1, max = 8))]
    pub parent_refs: Vec<GatewayRef>,
    /// Host names of requests for the model; unset, those of the listeners.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 16),
        inner(
            length(min = 1, max = 253),
            regex(pattern = r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
        )
    )]
    pub hostnames: Option<Vec<String>>,
    /// Which requests beside the host name: `None` takes all, `ModelHeader` those whose
    /// `X-Gateway-Base-Model-Name` is the model's name, as a body-based router sets it.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pub matches: Option<GatewayMatch>,
    /// Longest answer, such as `300s`; `0s` is the gateway's own longest. Unset: `300s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 16))]
    pub timeout: Option<String>,
}

/// Which requests of a host lead to the model.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub enum GatewayMatch {
    /// All.
    #[default]
    None,
    /// Those whose header `X-Gateway-Base-Model-Name` is the model's name.
    ModelHeader,
}

/// A Gateway, or one listener of it.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GatewayRef {
    /// Name of the Gateway.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its namespace; unset, the deployment's. The Gateway's `allowedRoutes` decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// One listener of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub section_name: Option<String>,
}
