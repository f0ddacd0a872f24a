//! What the operator may do on a cluster: one table, from which the chart's roles are generated.
//!
//! No rule names Secrets, no rule has a wildcard, and nothing is granted that no step uses. The rules of
//! [`Scope::Watched`] include what the rendered Role of an Endpoint Picker holds: the API server lets nobody grant
//! what they do not have.

use serde::Serialize;

/// Name of the leader's Lease, in the operator's namespace.
pub const LEASE: &str = "llmd-operator";

/// Where a rule holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// In each namespace that the operator watches; everywhere when it watches all.
    Watched,
    /// For kinds without a namespace. Without these permissions the built-in paths serve.
    Cluster,
    /// As [`Scope::Watched`], but only where the operator may read engines' logs (`readEngineLogs` of the chart).
    EngineLogs,
    /// In the namespace that the operator runs in.
    Own,
}

/// One rule, in the words of RBAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// Where it holds.
    #[serde(skip)]
    pub scope: Scope,
    /// API groups; the empty name is the core group.
    pub api_groups: &'static [&'static str],
    /// Plural names, with `/` and the subresource where one is meant.
    pub resources: &'static [&'static str],
    /// Object names; empty for all.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub resource_names: &'static [&'static str],
    /// Verbs.
    pub verbs: &'static [&'static str],
}

const fn rule(
    scope: Scope,
    api_groups: &'static [&'static str],
    resources: &'static [&'static str],
    verbs: &'static [&'static str],
) -> Rule {
    Rule {
        scope,
        api_groups,
        resources,
        resource_names: &[],
        verbs,
    }
}

const READ: &[&str] = &["get", "list", "watch"];
/// Server-side apply needs `create` and `patch`; pruning needs `delete`.
const OWN: &[&str] = &["get", "list", "watch", "create", "patch", "delete"];
/// Status by server-side apply or merge patch.
const STATUS: &[&str] = &["get", "patch"];

/// The table.
pub const RULES: &[Rule] = &[
    rule(Scope::Watched, &["llmd.dev"], &["llmdeployments"], READ),
    rule(Scope::Watched, &["llmd.dev"], &["llmdeployments/status"], STATUS),
    // a controller reference that blocks deletion needs it where OwnerReferencesPermissionEnforcement is on
    rule(
        Scope::Watched,
        &["llmd.dev"],
        &["llmdeployments/finalizers"],
        &["update"],
    ),
    rule(Scope::Watched, &["apps"], &["deployments"], OWN),
    rule(
        Scope::Watched,
        &[""],
        &["configmaps", "serviceaccounts", "services"],
        OWN,
    ),
    rule(Scope::Watched, &["policy"], &["poddisruptionbudgets"], OWN),
    // engines of several pods
    rule(
        Scope::Watched,
        &["leaderworkerset.x-k8s.io"],
        &["leaderworkersets"],
        OWN,
    ),
    // roles that another controller moves together
    rule(
        Scope::Watched,
        &["disaggregatedset.x-k8s.io"],
        &["disaggregatedsets"],
        OWN,
    ),
    // accelerators and network devices that pods claim
    rule(
        Scope::Watched,
        &["resource.k8s.io"],
        &["resourceclaimtemplates"],
        OWN,
    ),
    // engines that exchange KV blocks
    rule(Scope::Watched, &["networking.k8s.io"], &["networkpolicies"], OWN),
    rule(
        Scope::Watched,
        &["rbac.authorization.k8s.io"],
        &["rolebindings", "roles"],
        OWN,
    ),
    rule(
        Scope::Watched,
        &["inference.networking.k8s.io"],
        &["inferencepools"],
        OWN,
    ),
    rule(
        Scope::Watched,
        &["gateway.networking.k8s.io"],
        &["httproutes"],
        OWN,
    ),
    // causes: why a pod does not run
    rule(Scope::Watched, &[""], &["pods"], READ),
    // phases and failures of engines, looked up in a table
    rule(Scope::EngineLogs, &[""], &["pods/log"], &["get"]),
    // granted to Endpoint Pickers, so held
    rule(
        Scope::Watched,
        &["llm-d.ai", "inference.networking.x-k8s.io"],
        &["inferencemodelrewrites", "inferenceobjectives"],
        READ,
    ),
    rule(
        Scope::Watched,
        &["events.k8s.io"],
        &["events"],
        &["create", "patch"],
    ),
    rule(
        Scope::Cluster,
        &["llmd.dev"],
        &["acceleratorprofiles", "welllitpaths"],
        READ,
    ),
    rule(
        Scope::Cluster,
        &["llmd.dev"],
        &["acceleratorprofiles/status", "welllitpaths/status"],
        STATUS,
    ),
    // `create` cannot be limited to a name
    rule(Scope::Own, &["coordination.k8s.io"], &["leases"], &["create"]),
    Rule {
        scope: Scope::Own,
        api_groups: &["coordination.k8s.io"],
        resources: &["leases"],
        resource_names: &[LEASE],
        verbs: &["get", "update"],
    },
];

/// Rules of one scope, in the table's order.
pub fn rules(scope: Scope) -> impl Iterator<Item = &'static Rule> {
    RULES.iter().filter(move |rule| rule.scope == scope)
}

/// Whether the table lets the operator do something to any object of a kind.
pub fn allows(scope: Scope, api_group: &str, resource: &str, verb: &str) -> bool {
    rules(scope).any(|rule| {
        rule.resource_names.is_empty()
            && rule.api_groups.contains(&api_group)
            && rule.resources.contains(&resource)
            && rule.verbs.contains(&verb)
    })
}

#[cfg(test)]
mod tests {
    use llmd_render::{Document, Inputs, Object, RenderOptions};

    use super::*;

    const EXAMPLES: [&str; 5] = [
        include_str!("../../../examples/minimal.yaml"),
        include_str!("../../../examples/simulated.yaml"),
        include_str!("../../../examples/prefill-decode.yaml"),
        include_str!("../../../examples/private-model.yaml"),
        include_str!("../../../examples/wide-expert-parallel.yaml"),
    ];

    fn rendered() -> Vec<Object> {
        let mut objects = Vec::new();
        for text in EXAMPLES {
            for document in llmd_render::decode(text).unwrap() {
                let Document::Deployment(deployment) = document else {
                    continue;
                };
                let validated = llmd_render::validate(Inputs {
                    deployment: &deployment,
                    paths: &[],
                    accelerators: &[],
                    namespace: "default",
                    kept: None,
                })
                .unwrap();
                objects.extend(llmd_render::render(&validated.deployment, &RenderOptions::default()).objects);
            }
        }
        objects
    }

    /// `("apps", "deployments")` for a Deployment: kinds of ours and of Kubernetes have the plurals of English.
    fn resource(object: &Object) -> (String, String) {
        let value = object.to_value();
        let version = value["apiVersion"].as_str().unwrap().to_owned();
        let group = version
            .split_once('/')
            .map_or(String::new(), |(group, _)| group.to_owned());
        let kind = object.kind().to_lowercase();
        let plural = match kind.strip_suffix('y') {
            Some(stem) => format!("{stem}ies"),
            None => format!("{kind}s"),
        };
        (group, plural)
    }

    #[test]
    fn no_rule_has_a_wildcard_or_reaches_secrets() {
        for rule in RULES {
            for name in rule.api_groups.iter().chain(rule.resources).chain(rule.verbs) {
                assert!(!name.contains('*'), "{rule:?}");
                assert!(!name.starts_with("secret"), "{rule:?}");
            }
            assert!(
                !rule
                    .verbs
                    .iter()
                    .any(|verb| matches!(*verb, "escalate" | "bind" | "impersonate" | "deletecollection")),
                "{rule:?}"
            );
            assert!(
                !rule.resources.iter().any(|name| name.starts_with("clusterrole")
                    || name.starts_with("pods/") && *name != "pods/log"),
                "{rule:?}"
            );
            let reads_logs = rule.resources.contains(&"pods/log");
            assert_eq!(reads_logs, rule.scope == Scope::EngineLogs, "{rule:?}");
            assert!(!reads_logs || rule.verbs == ["get"], "{rule:?}");
        }
    }

    #[test]
    fn every_rendered_kind_can_be_applied_watched_and_pruned() {
        for object in rendered() {
            let (group, plural) = resource(&object);
            for verb in OWN {
                assert!(
                    allows(Scope::Watched, &group, &plural, verb),
                    "no rule lets the operator {verb} {plural} of group {group:?}"
                );
            }
        }
    }

    #[test]
    fn whatever_a_rendered_role_grants_the_operator_holds() {
        let mut seen = 0;
        for object in rendered() {
            let Object::Role(role) = object else { continue };
            for rule in role.rules.unwrap() {
                for group in rule.api_groups.unwrap() {
                    for resource in rule.resources.as_ref().unwrap() {
                        for verb in &rule.verbs {
                            seen += 1;
                            assert!(
                                allows(Scope::Watched, &group, resource, verb),
                                "a rendered Role grants {verb} on {resource} of {group:?}"
                            );
                        }
                    }
                }
            }
        }
        assert!(seen > 5);
    }
}
