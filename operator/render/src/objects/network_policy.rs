//! Who may reach engines that exchange KV blocks: their side channels ask nobody for a name.

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::meta::{metadata, serving_selector};
use crate::names;
use crate::validated::ValidatedDeployment;

/// HTTP for everybody; all else, the ports that a transfer picks included, for engines of the same deployment.
pub(super) fn policy(deployment: &ValidatedDeployment) -> Option<NetworkPolicy> {
    if !deployment.reads_peers() {
        return None;
    }
    let engines = || LabelSelector {
        match_labels: Some(serving_selector(deployment)),
        ..LabelSelector::default()
    };
    let ranks = deployment.routed_ports();
    let ranks = ranks.end - ranks.start;
    let http = [names::ENGINE_PORT, names::INNER_ENGINE_PORT].map(|number| NetworkPolicyPort {
        port: Some(IntOrString::Int(number)),
        end_port: (ranks > 1).then_some(number + ranks - 1),
        protocol: Some("TCP".to_owned()),
    });
    let everybody = NetworkPolicyIngressRule {
        ports: Some(http.into()),
        ..NetworkPolicyIngressRule::default()
    };
    let each_other = NetworkPolicyIngressRule {
        from: Some(vec![NetworkPolicyPeer {
            pod_selector: Some(engines()),
            ..NetworkPolicyPeer::default()
        }]),
        ..NetworkPolicyIngressRule::default()
    };
    Some(NetworkPolicy {
        metadata: metadata(deployment, format!("{}-kv", deployment.name), "modelserver"),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(engines()),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(vec![everybody, each_other]),
            ..NetworkPolicySpec::default()
        }),
    })
}
