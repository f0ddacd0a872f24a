//! Brings a status to the API server, also onto a resource that the schema would not take any more.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Client, ResourceExt};
use llmd_crds::{LLMDeployment, LLMDeploymentStatus};
use serde_json::{Value, json};

use crate::error::ReconcileError;

/// Field manager of the status.
pub(crate) const STATUS_MANAGER: &str = "llmd-operator-status";

/// Writes `status` by server-side apply.
///
/// An object with a value of a type that the schema does not have (stored under another schema) cannot be applied to:
/// the API server fails on what is stored. It takes a merge patch, since what it does not change may stay as it is.
pub(crate) async fn write(
    client: &Client,
    object: &DynamicObject,
    status: &LLMDeploymentStatus,
) -> Result<(), ReconcileError> {
    let resource = ApiResource::erase::<LLMDeployment>(&());
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, &resource);
    let apply = json!({
        "apiVersion": resource.api_version, "kind": resource.kind,
        "metadata": {"name": name, "uid": object.metadata.uid}, "status": status,
    });
    let parameters = PatchParams::apply(STATUS_MANAGER).force();
    let written = match api.patch_status(&name, &parameters, &Patch::Apply(apply)).await {
        // What a merge patch wrote is not taken away by leaving it out.
        Ok(live) if conditions(&live.data["status"]) == names(&status.conditions) => return Ok(()),
        Ok(live) => merge(&api, &live, status).await,
        Err(kube::Error::Api(refusal)) if refusal.code == 500 => merge(&api, object, status).await,
        Err(error) => Err(error),
    };
    match written {
        // Gone meanwhile, or another one of the same name took its place.
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        Err(error) => Err(ReconcileError::api(
            "write the status of",
            &resource.kind,
            &name,
            error,
        )),
        Ok(()) => Ok(()),
    }
}

/// Makes the status exactly `status`, whoever wrote it before.
async fn merge(
    api: &Api<DynamicObject>,
    live: &DynamicObject,
    status: &LLMDeploymentStatus,
) -> Result<(), kube::Error> {
    let mut exact = json!(status);
    for name in live.data["status"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name)
    {
        if exact[name].is_null() {
            // which takes it away
            exact[name] = Value::Null;
        }
    }
    let patch = json!({"metadata": {"uid": live.metadata.uid}, "status": exact});
    let parameters = PatchParams {
        field_manager: Some(STATUS_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let name = live.name_any();
    api.patch_status(&name, &parameters, &Patch::Merge(patch)).await?;
    Ok(())
}

/// Types of the conditions of a status, sorted.
fn conditions(status: &Value) -> Vec<&str> {
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let mut names: Vec<&str> = conditions.filter_map(|one| one["type"].as_str()).collect();
    names.sort_unstable();
    names
}

fn names(conditions: &[Condition]) -> Vec<&str> {
    let mut names: Vec<&str> = conditions.iter().map(|one| one.type_.as_str()).collect();
    names.sort_unstable();
    names
}
