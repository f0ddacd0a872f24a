//! Kinds that are looked at by name: ours, and those that a deployment becomes.

use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::core::{GroupVersionKind, TypeMeta};
use serde_json::Value;

use super::{Session, api_failure, is_forbidden, is_missing};
use crate::exit::Failure;

/// Label that every object and pod of a deployment carries.
pub(crate) const DEPLOYMENT_LABEL: &str = "llmd.dev/deployment";

/// `group, version, kind` of what a deployment becomes. Foreign ones are skipped where they are not served.
const CHILDREN: [(&str, &str, &str); 9] = [
    ("", "v1", "ServiceAccount"),
    ("", "v1", "ConfigMap"),
    ("", "v1", "Service"),
    ("apps", "v1", "Deployment"),
    ("rbac.authorization.k8s.io", "v1", "Role"),
    ("rbac.authorization.k8s.io", "v1", "RoleBinding"),
    ("policy", "v1", "PodDisruptionBudget"),
    ("inference.networking.k8s.io", "v1", "InferencePool"),
    ("gateway.networking.k8s.io", "v1", "HTTPRoute"),
];

/// A kind of ours.
pub(crate) fn ours(kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(llmd_crds::GROUP, llmd_crds::VERSION, kind))
}

/// The kind of an object as it is written.
pub(crate) fn of(object: &Value) -> Option<ApiResource> {
    let text = |name: &str| Some(object.get(name)?.as_str()?.to_owned());
    let types = TypeMeta {
        api_version: text("apiVersion")?,
        kind: text("kind")?,
    };
    Some(ApiResource::from_gvk(&GroupVersionKind::try_from(&types).ok()?))
}

/// One `LLMDeployment` as it is stored, whether or not this version can decode it.
pub(crate) async fn deployment(session: &Session, name: &str) -> Result<DynamicObject, Failure> {
    let api: Api<DynamicObject> =
        Api::namespaced_with(session.client.clone(), &session.namespace, &ours("LLMDeployment"));
    match api.get_opt(name).await {
        Ok(Some(found)) => Ok(found),
        Ok(None) => Err(Failure::runtime(format!(
            "there is no LLMDeployment {name} in namespace {}, or its definition is not installed (`llmd crds apply`)",
            session.namespace
        ))),
        Err(error) => Err(api_failure("cannot read the LLMDeployment", &error)),
    }
}

/// Objects of a deployment by label, in the order of their kinds. Kinds that are not served or that the user may not
/// list are left out.
pub(crate) async fn children(
    session: &Session,
    name: &str,
) -> Result<Vec<(ApiResource, DynamicObject)>, Failure> {
    let mut found = Vec::new();
    let of_deployment = ListParams::default().labels(&format!("{DEPLOYMENT_LABEL}={name}"));
    for (group, version, kind) in CHILDREN {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let api: Api<DynamicObject> =
            Api::namespaced_with(session.client.clone(), &session.namespace, &resource);
        match api.list(&of_deployment).await {
            Ok(list) => found.extend(list.items.into_iter().map(|object| (resource.clone(), object))),
            Err(error) if is_forbidden(&error) || is_missing(&error) => {}
            Err(error) => return Err(api_failure(&format!("cannot list {kind}"), &error)),
        }
    }
    Ok(found)
}
