//! The part of `HTTPRoute` (`gateway.networking.k8s.io/v1`) that we write.
//! Source: kubernetes-sigs/gateway-api, `apis/v1/httproute_types.go`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

use crate::gateway::GatewayRef;

/// Which requests of a Gateway go where.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HTTPRoute {
    /// Name, namespace, labels.
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: HTTPRouteSpec,
}

impl HTTPRoute {
    /// `apiVersion` of the kind.
    pub const API_VERSION: &'static str = "gateway.networking.k8s.io/v1";
    /// `kind` of the kind.
    pub const KIND: &'static str = "HTTPRoute";
}

/// What is wanted.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HTTPRouteSpec {
    /// Gateways, which is what a reference without group and kind means.
    pub parent_refs: Vec<GatewayRef>,
    /// Host names; none takes those of the listeners.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hostnames: Vec<String>,
    /// Requests and where they go.
    pub rules: Vec<HTTPRouteRule>,
}

/// Requests and where they go.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HTTPRouteRule {
    /// Requests that meet one of these.
    pub matches: Vec<HTTPRouteMatch>,
    /// Where they go.
    pub backend_refs: Vec<BackendRef>,
    /// How long they may take.
    pub timeouts: HTTPRouteTimeouts,
}

/// What a request must have, all of it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HTTPRouteMatch {
    /// Its path.
    pub path: PathMatch,
    /// Its headers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HeaderMatch>,
}

/// A path.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PathMatch {
    /// `PathPrefix` or `Exact`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The path.
    pub value: String,
}

/// A header.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HeaderMatch {
    /// `Exact`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Name of the header.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// Where requests go.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendRef {
    /// API group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Name, in the namespace of the route.
    pub name: String,
}

/// How long requests may take.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HTTPRouteTimeouts {
    /// From the first byte of the request to the last of the answer (GEP-2257 duration).
    pub request: String,
}
