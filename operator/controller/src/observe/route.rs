//! What the cluster's gateways say about a route and its pool.
//! Source: Gateway API v1 `RouteParentStatus`, Gateway API Inference Extension v1 `ParentStatus`.

use kube::api::DynamicObject;
use llmd_crds::GatewayRef;
use serde_json::Value;

/// Both must hold at every parent.
const CONDITIONS: [&str; 2] = ["Accepted", "ResolvedRefs"];
/// Longest reason that is taken over; those of the specifications are shorter.
const LONGEST_REASON: usize = 64;

/// How far the gateways are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteState {
    /// Every one leads to the engines.
    Accepted,
    /// One has not answered, or not about the newest spec.
    Waiting(String),
    /// One refuses.
    Refused {
        /// The gateway's reason, in CamelCase.
        reason: String,
        /// What it means, and what to do about it.
        message: String,
    },
}

/// Looks at the statuses of an HTTPRoute and of the InferencePool behind it; `None` is an object that is not there
/// yet.
pub fn route(
    parents: &[GatewayRef],
    namespace: &str,
    http_route: Option<&DynamicObject>,
    pool: Option<&DynamicObject>,
) -> RouteState {
    let mut waiting = None;
    for parent in parents {
        let wanted = parent.namespace.as_deref().unwrap_or(namespace);
        let gateway = format!("Gateway {wanted}/{}", parent.name);
        for (kind, object) in [("HTTPRoute", http_route), ("InferencePool", pool)] {
            let state =
                object.and_then(|object| answer(object, parent, wanted, namespace, kind == "HTTPRoute"));
            match state {
                Some(Ok(())) => {}
                Some(Err(reason)) => {
                    let why = meaning(&reason);
                    let message = format!("{gateway} refuses the {kind} ({reason}): {why}");
                    return RouteState::Refused { reason, message };
                }
                None => {
                    waiting.get_or_insert_with(|| {
                        format!(
                            "{gateway} has not answered the {kind} yet: if that lasts, look whether it exists and its \
                             controller knows InferencePool"
                        )
                    });
                }
            }
        }
    }
    waiting.map_or(RouteState::Accepted, RouteState::Waiting)
}

/// What `parent` says about `object`; `None` while it says nothing about its newest spec.
fn answer(
    object: &DynamicObject,
    parent: &GatewayRef,
    wanted: &str,
    namespace: &str,
    by_section: bool,
) -> Option<Result<(), String>> {
    let is_meant = |entry: &&Value| {
        let reference = &entry["parentRef"];
        reference["name"] == parent.name.as_str()
            && reference["namespace"].as_str().unwrap_or(namespace) == wanted
            && reference["kind"].as_str().is_none_or(|kind| kind == "Gateway")
            && (!by_section || reference["sectionName"].as_str() == parent.section_name.as_deref())
    };
    let entries = object.data["status"]["parents"].as_array()?;
    let conditions = entries.iter().find(is_meant)?["conditions"].as_array()?;
    for kind in CONDITIONS {
        let condition = conditions.iter().find(|condition| condition["type"] == kind)?;
        if condition["observedGeneration"].as_i64() < object.metadata.generation {
            return None;
        }
        match condition["status"].as_str() {
            Some("True") => {}
            Some("False") => return Some(Err(reason(condition))),
            _ => return None,
        }
    }
    Some(Ok(()))
}

/// A controller's text is not ours to pass on; its reason is one word.
fn reason(condition: &Value) -> String {
    let reason = condition["reason"].as_str().unwrap_or_default();
    let is_word = !reason.is_empty()
        && reason.len() <= LONGEST_REASON
        && reason.chars().all(|letter| letter.is_ascii_alphanumeric());
    if is_word {
        reason.to_owned()
    } else {
        "NotAccepted".to_owned()
    }
}

/// What a reason of the specifications means.
fn meaning(reason: &str) -> &'static str {
    match reason {
        "NoMatchingParent" => "it has no such listener: correct sectionName",
        "NoMatchingListenerHostname" => {
            "no listener takes these host names: correct hostnames, or the listener"
        }
        "NotAllowedByListeners" => {
            "its listeners take no routes of this namespace: see allowedRoutes of the Gateway"
        }
        "RefNotPermitted" => "a reference into another namespace lacks a ReferenceGrant",
        "BackendNotFound" => "it does not find the InferencePool",
        "InvalidKind" | "UnsupportedProtocol" | "UnsupportedValue" | "NotSupportedByParent" => {
            "it does not know InferencePool: use a gateway with the inference extension, or router.mode Standalone"
        }
        "EndpointPickerRefMissing" | "InvalidExtensionRef" => {
            "it does not find the Endpoint Picker's Service"
        }
        "HTTPRouteNotAccepted" => "the HTTPRoute is refused: see `kubectl describe httproute`",
        "Pending" => "it has not come to it yet",
        _ => "see `kubectl describe httproute` and `kubectl describe inferencepool`",
    }
}

#[cfg(test)]
mod tests {
    use kube::api::ApiResource;
    use kube::core::GroupVersionKind;
    use serde_json::json;

    use super::*;

    fn object(parents: &Value) -> DynamicObject {
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("g", "v1", "K"));
        let mut object = DynamicObject::new("x", &kind).data(json!({"status": {"parents": parents}}));
        object.metadata.generation = Some(2);
        object
    }

    fn parent(generation: i64, accepted: (&str, &str), section: Option<&str>) -> Value {
        let condition = |kind: &str, status: &str, reason: &str| {
            json!({"type": kind, "status": status, "reason": reason, "observedGeneration": generation,
                "message": "canary-8c1f text of a controller"})
        };
        json!({"parentRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gate", "sectionName": section},
            "conditions": [condition("Accepted", accepted.0, accepted.1), condition("ResolvedRefs", "True", "ResolvedRefs")]})
    }

    fn look(http_route: &Value, pool: &Value) -> RouteState {
        let parents = [GatewayRef {
            name: "gate".to_owned(),
            ..GatewayRef::default()
        }];
        route(&parents, "ns", Some(&object(http_route)), Some(&object(pool)))
    }

    const YES: (&str, &str) = ("True", "Accepted");

    #[test]
    fn both_objects_need_the_word_of_every_gateway_about_this_generation() {
        let good = json!([parent(2, YES, None)]);
        assert_eq!(look(&good, &good), RouteState::Accepted);
        for (http_route, pool) in [
            (&json!([]), &good),
            (&good, &json!([])),
            (&json!([parent(1, YES, None)]), &good),
            (&json!([parent(2, YES, Some("other"))]), &good),
            (&json!([parent(2, ("Unknown", "Pending"), None)]), &good),
        ] {
            let RouteState::Waiting(message) = look(http_route, pool) else {
                panic!("{http_route}");
            };
            assert!(message.contains("Gateway ns/gate has not answered"), "{message}");
        }
        let parents = [GatewayRef {
            name: "gate".to_owned(),
            ..GatewayRef::default()
        }];
        assert!(matches!(
            route(&parents, "ns", None, None),
            RouteState::Waiting(_)
        ));
    }

    #[test]
    fn a_refusal_is_named_by_its_reason_and_never_quoted() {
        let good = json!([parent(2, YES, None)]);
        for (reason, part) in [
            ("NotAllowedByListeners", "allowedRoutes"),
            ("NoMatchingListenerHostname", "hostnames"),
            ("SomethingNew", "kubectl describe httproute"),
        ] {
            let RouteState::Refused {
                reason: said,
                message,
            } = look(&json!([parent(2, ("False", reason), None)]), &good)
            else {
                panic!("{reason}");
            };
            assert_eq!(said, reason);
            assert!(message.contains(part) && !message.contains("canary"), "{message}");
        }
        let odd = json!([parent(2, ("False", "two words canary-8c1f"), None)]);
        let RouteState::Refused { reason, message } = look(&odd, &good) else {
            panic!("not refused");
        };
        assert!(
            reason == "NotAccepted" && !message.contains("canary"),
            "{message}"
        );
    }
}
