//! Brings objects to the API server by server-side apply, and takes away what is no longer wanted.
//!
//! An object is sent only when its rendered bytes changed or when it is not as this process left it:
//! no write in steady state. Objects that are somebody else's are never touched.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Client;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use kube::core::{GroupVersionKind, TypeMeta};
use llmd_render::Object;
use serde_json::{Value, json};
use xxhash_rust::xxh64::xxh64;

use crate::error::ReconcileError;
use crate::metrics::Metrics;
use crate::rollout::{Earlier, INITIAL};
use crate::stores::{Identity, Stores, live_mark};

/// Field manager of the objects that are rendered. Stable for ever: fields are owned by name.
pub const MANAGER: &str = "llmd-operator";

/// What was sent last, per object.
#[derive(Debug, Default)]
pub(crate) struct Sent(Mutex<HashMap<String, Mark>>);

/// How an object looked after it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mark {
    /// Of the rendered bytes.
    rendered: u64,
    /// Of what only a change by somebody else can change.
    live: u64,
}

/// What came of applying a set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    /// `Kind name` of objects that did not exist.
    pub(crate) created: Vec<String>,
    /// Of objects that were rendered differently.
    pub(crate) changed: Vec<String>,
    /// Of objects that somebody else had changed.
    pub(crate) corrected: Vec<String>,
    /// Of objects that were taken away.
    pub(crate) pruned: Vec<String>,
    /// Objects that could not be applied and why, in words for people.
    pub(crate) refused: Vec<String>,
}

/// Who owns the objects of one resource.
pub(crate) struct Owner<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) reference: OwnerReference,
}

/// Applies `objects` in their order, sizes workloads of earlier revisions, then takes away what carries our label and owner and is not among them.
pub(crate) async fn apply(
    client: &Client,
    stores: &Stores,
    sent: &Sent,
    metrics: &Metrics,
    owner: &Owner<'_>,
    objects: &[Object],
    earlier: &[Earlier],
) -> Result<Applied, ReconcileError> {
    let mut applied = Applied::default();
    let mut wanted = Vec::with_capacity(objects.len());
    for object in objects {
        let (resource, value) = owned(object, &owner.reference);
        wanted.push((resource.kind.clone(), object.name().to_owned()));
        one(
            client,
            stores,
            sent,
            metrics,
            owner,
            &resource,
            &value,
            &mut applied,
        )
        .await?;
    }
    for one in earlier {
        resize(client, owner, one).await?;
        wanted.push((one.resource.kind.clone(), one.name.clone()));
    }
    if applied.refused.is_empty() {
        prune(client, stores, sent, owner, &wanted, &mut applied).await?;
    }
    Ok(applied)
}

/// Gives a workload of an earlier revision its size; nothing else of it is known any more.
async fn resize(client: &Client, owner: &Owner<'_>, one: &Earlier) -> Result<(), ReconcileError> {
    if one.next == one.replicas && one.is_marked {
        return Ok(());
    }
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), owner.namespace, &one.resource);
    let patch = json!({
        "metadata": {"annotations": {INITIAL: one.initial.to_string()}},
        "spec": {"replicas": one.next},
    });
    let parameters = PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    };
    match api
        .patch_metadata(&one.name, &parameters, &Patch::Merge(patch))
        .await
    {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(ReconcileError::api("patch", &one.resource.kind, &one.name, error)),
    }
}

/// The object as it is sent: with its owner.
fn owned(object: &Object, owner: &OwnerReference) -> (ApiResource, Value) {
    let mut value = object.to_value();
    value["metadata"]["ownerReferences"] = json!([owner]);
    let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let types = TypeMeta {
        api_version: text("apiVersion"),
        kind: text("kind"),
    };
    let kind =
        GroupVersionKind::try_from(&types).unwrap_or_else(|_| GroupVersionKind::gvk("", "v1", object.kind()));
    (ApiResource::from_gvk(&kind), value)
}

#[allow(
    clippy::too_many_arguments,
    reason = "one step of `apply`, which has these at hand"
)]
async fn one(
    client: &Client,
    stores: &Stores,
    sent: &Sent,
    metrics: &Metrics,
    owner: &Owner<'_>,
    resource: &ApiResource,
    value: &Value,
    applied: &mut Applied,
) -> Result<(), ReconcileError> {
    let name = value["metadata"]["name"].as_str().unwrap_or_default();
    let label = format!("{} {name}", resource.kind);
    let key = key(resource, owner.namespace, name);
    let rendered = xxh64(value.to_string().as_bytes(), 0);
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), owner.namespace, resource);
    let mut live = stores.identity(resource, owner.namespace, name);
    if live.is_none() {
        // Not ours as far as the watch knows: look before taking it over.
        let found = api.get_metadata_opt(name).await;
        let found = found.map_err(|error| ReconcileError::api("get", &resource.kind, name, error))?;
        live = found.map(|object| Identity::of(&object.metadata));
    }
    let mut action = &mut applied.created;
    let mut outcome = "created";
    if let Some(live) = &live {
        if !is_ours(live, &owner.reference) {
            applied.refused.push(format!(
                "{label} exists and does not belong to this LLMDeployment: delete or rename it"
            ));
            metrics.applied(&resource.kind, "conflict");
            return Ok(());
        }
        match sent.get(&key) {
            Some(mark) if mark.rendered == rendered && mark.live == live.mark => return Ok(()),
            Some(mark) if mark.rendered == rendered => {
                action = &mut applied.corrected;
                outcome = "corrected";
            }
            _ => {
                action = &mut applied.changed;
                outcome = "changed";
            }
        }
    }
    let parameters = PatchParams::apply(MANAGER);
    let parameters = if live.is_some() {
        parameters.force()
    } else {
        parameters
    };
    // Only the metadata comes back: the rest is what was sent, and a thousand resources answer at a start.
    match api.patch_metadata(name, &parameters, &Patch::Apply(value)).await {
        Ok(object) => {
            let before = live.as_ref().map(|live| &*live.version);
            // The first apply after a start finds most objects as they should be.
            if before.is_none() || before != object.metadata.resource_version.as_deref() {
                action.push(label);
                metrics.applied(&resource.kind, outcome);
            } else {
                metrics.applied(&resource.kind, "unchanged");
            }
            sent.set(
                key,
                Mark {
                    rendered,
                    live: live_mark(&object.metadata),
                },
            );
            Ok(())
        }
        Err(kube::Error::Api(status)) if is_final(&status) => {
            metrics.applied(&resource.kind, "refused");
            applied
                .refused
                .push(format!("{label} is refused: {}", explained(&status)));
            Ok(())
        }
        Err(error) => Err(ReconcileError::api("apply", &resource.kind, name, error)),
    }
}

/// Whether trying again cannot help.
fn is_final(status: &kube::core::Status) -> bool {
    matches!(status.code, 400 | 403 | 409 | 422)
}

/// The API server's own words, cut to a line.
fn explained(status: &kube::core::Status) -> String {
    let first = status.message.lines().next().unwrap_or_default();
    first.chars().take(300).collect()
}

async fn prune(
    client: &Client,
    stores: &Stores,
    sent: &Sent,
    owner: &Owner<'_>,
    wanted: &[(String, String)],
    applied: &mut Applied,
) -> Result<(), ReconcileError> {
    for (resource, name, live) in stores.of(owner.namespace, owner.name) {
        let is_wanted = wanted
            .iter()
            .any(|(kind, wanted)| *kind == resource.kind && *wanted == name);
        if is_wanted || !is_ours(&live, &owner.reference) || live.is_leaving {
            continue;
        }
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), owner.namespace, &resource);
        let parameters = DeleteParams::background().preconditions(Preconditions {
            uid: Some(live.uid.to_string()),
            resource_version: None,
        });
        match api.delete(&name, &parameters).await {
            Ok(_) => applied.pruned.push(format!("{} {name}", resource.kind)),
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {}
            Err(error) => return Err(ReconcileError::api("delete", &resource.kind, &name, error)),
        }
        sent.forget(&key(&resource, owner.namespace, &name));
    }
    Ok(())
}

fn is_ours(live: &Identity, owner: &OwnerReference) -> bool {
    live.controller.as_deref() == Some(&*owner.uid)
}

fn key(resource: &ApiResource, namespace: &str, name: &str) -> String {
    format!("{}/{namespace}/{name}", resource.kind)
}

impl Sent {
    fn get(&self, key: &str) -> Option<Mark> {
        self.marks().get(key).cloned()
    }

    fn set(&self, key: String, mark: Mark) {
        self.marks().insert(key, mark);
    }

    fn forget(&self, key: &str) {
        self.marks().remove(key);
    }

    /// The resource is gone, and with it what it owned.
    pub(crate) fn forget_of(&self, namespace: &str, names: impl Fn(&str) -> bool) {
        let middle = format!("/{namespace}/");
        self.marks()
            .retain(|key, _| !key.split_once(&middle).is_some_and(|(_, name)| names(name)));
    }

    fn marks(&self) -> std::sync::MutexGuard<'_, HashMap<String, Mark>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
