//! The HTTPRoute: which requests of the cluster's Gateways go to the InferencePool.
//! Source: llm-d-router `config/charts`, template of the route.

use llmd_crds::{
    BackendRef, GatewayMatch, HTTPRoute, HTTPRouteMatch, HTTPRouteRule, HTTPRouteSpec, HTTPRouteTimeouts,
    HeaderMatch, InferencePool, PathMatch,
};

use super::meta::metadata;
use crate::validated::ValidatedDeployment;

/// Set by a body-based router (Gateway API Inference Extension) from the body's `model`.
const MODEL_HEADER: &str = "X-Gateway-Base-Model-Name";

/// `None` where no gateway is asked for.
pub(super) fn http_route(deployment: &ValidatedDeployment) -> Option<HTTPRoute> {
    let gateway = deployment.router.proxy.gateway()?;
    let headers = match gateway.matches {
        GatewayMatch::None => Vec::new(),
        GatewayMatch::ModelHeader => vec![HeaderMatch {
            kind: "Exact".to_owned(),
            name: MODEL_HEADER.to_owned(),
            value: deployment.model.name().to_owned(),
        }],
    };
    let (group, _) = InferencePool::API_VERSION.split_once('/').unwrap_or_default();
    let rule = HTTPRouteRule {
        matches: vec![HTTPRouteMatch {
            path: PathMatch {
                kind: "PathPrefix".to_owned(),
                value: "/".to_owned(),
            },
            headers,
        }],
        backend_refs: vec![BackendRef {
            group: group.to_owned(),
            kind: InferencePool::KIND.to_owned(),
            name: deployment.name.clone(),
        }],
        timeouts: HTTPRouteTimeouts {
            request: format!("{}s", gateway.timeout_seconds),
        },
    };
    Some(HTTPRoute {
        metadata: metadata(deployment, deployment.name.clone(), "route"),
        spec: HTTPRouteSpec {
            parent_refs: gateway.parents.clone(),
            hostnames: gateway.hostnames.clone(),
            rules: vec![rule],
        },
    })
}
