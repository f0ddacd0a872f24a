//! What a deployment becomes.

mod disruption;
mod engine;
mod envoy;
mod epp;
mod images;
mod meta;
mod network_policy;
mod path;
mod pod;
mod pool;
mod route;

use crate::object::{Object, Rendered};
use crate::options::RenderOptions;
use crate::validated::ValidatedDeployment;

/// Renders a deployment. Equal inputs give equal bytes.
pub fn render(deployment: &ValidatedDeployment, options: &RenderOptions) -> Rendered {
    let mut objects = vec![
        Object::ServiceAccount(engine::service_account(deployment)),
        Object::ServiceAccount(epp::service_account(deployment)),
        Object::Role(epp::role(deployment)),
        Object::RoleBinding(epp::role_binding(deployment)),
        Object::ConfigMap(epp::config_map(deployment)),
    ];
    objects.extend(path::config_map(deployment).map(Object::ConfigMap));
    objects.extend(envoy::config_map(deployment).map(Object::ConfigMap));
    objects.extend(engine::mooncake::config_map(deployment).map(Object::ConfigMap));
    objects.push(Object::Service(Box::new(epp::service(deployment))));
    objects.extend(epp::workload(deployment, options));
    if has_pool(deployment, options) {
        objects.push(Object::InferencePool(Box::new(pool::inference_pool(deployment))));
    }
    objects.extend(network_policy::policy(deployment).map(|policy| Object::NetworkPolicy(Box::new(policy))));
    objects.extend(engine::claim_templates(deployment));
    objects.extend(engine::workloads(deployment, options));
    // Last: a route leads nowhere before there is something behind it.
    objects.extend(route::http_route(deployment).map(|route| Object::HTTPRoute(Box::new(route))));
    Rendered { objects }
}

/// A gateway reaches the engines by an InferencePool only.
fn has_pool(deployment: &ValidatedDeployment, options: &RenderOptions) -> bool {
    options.inference_pool || deployment.router.proxy.gateway().is_some()
}
