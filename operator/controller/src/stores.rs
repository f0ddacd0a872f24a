//! Reduced copies of what the operator made, kept by watches, and who has to be looked at again.

mod owned;
mod reduce;
mod visible;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::{Stream, StreamExt, stream};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource};
use llmd_crds::{HTTPRoute, InferencePool};

use crate::capabilities::Capabilities;
use crate::gate::Gate;
use crate::scope::Scope;

use owned::{Index, Owned};
pub(crate) use reduce::live_mark;
use visible::{Seen, visible};

/// Label that names the `LLMDeployment` an object or pod belongs to.
pub(crate) const DEPLOYMENT_LABEL: &str = "llmd.dev/deployment";
/// Label that names the pool a pod belongs to.
pub(crate) const POOL_LABEL: &str = "llmd.dev/pool";

/// Objects of one answer when a watch begins: whole objects arrive, and a fraction of each is kept.
const PAGE: u32 = 50;

/// Names of resources to reconcile: namespace and name.
pub(crate) type Triggers = stream::BoxStream<'static, (String, String)>;

/// Copies by kind. What is not needed for drift, causes and status is dropped on arrival.
pub(crate) struct Stores {
    pub(crate) deployments: Owned<Deployment>,
    pub(crate) pods: Owned<Pod>,
    /// Kinds whose status gateways write, by kind: metadata and status.
    routed: BTreeMap<String, (ApiResource, Owned<DynamicObject>)>,
    /// Kinds of which only the metadata is watched, by `apiVersion/kind`.
    metadata: BTreeMap<String, (ApiResource, Owned<PartialObjectMeta<DynamicObject>>)>,
    ready: Gate,
}

fn kind(group: &str, version: &str, kind: &str) -> ApiResource {
    ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk(group, version, kind))
}

/// Kinds that the operator makes beside Deployments, and whose status nobody needs.
fn metadata_kinds() -> [ApiResource; 6] {
    [
        kind("", "v1", "ServiceAccount"),
        kind("", "v1", "ConfigMap"),
        kind("", "v1", "Service"),
        kind("rbac.authorization.k8s.io", "v1", "Role"),
        kind("rbac.authorization.k8s.io", "v1", "RoleBinding"),
        kind("policy", "v1", "PodDisruptionBudget"),
    ]
}

/// Kinds that the operator makes where they are served, and to which gateways answer.
fn routed_kinds(served: Capabilities) -> Vec<ApiResource> {
    let pool = served
        .inference_pool
        .then(|| kind("inference.networking.k8s.io", "v1", InferencePool::KIND));
    let route = served
        .http_route
        .then(|| kind("gateway.networking.k8s.io", "v1", HTTPRoute::KIND));
    pool.into_iter().chain(route).collect()
}

/// Watches what carries our label, keeps it reduced, and says whose it is.
fn watched<K>(
    api: Api<K>,
    kind: &<K as Resource>::DynamicType,
    reduce: fn(&mut K),
    triggers: &mut Vec<Triggers>,
) -> Owned<K>
where
    K: Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + Sync + 'static,
    <K as Resource>::DynamicType: Clone + Eq + std::hash::Hash + Send + Sync + std::fmt::Debug,
{
    let writer = reflector::store::Writer::new(kind.clone());
    let store = writer.as_reader();
    let index = Index::default();
    let (seen, names) = (index.clone(), index.clone());
    let ours = watcher::Config::default()
        .labels(DEPLOYMENT_LABEL)
        .page_size(PAGE);
    let stream = watcher(api, ours).modify(move |object| {
        reduce(object);
        seen.see(object);
    });
    let version = |object: &K| object.meta().resource_version.clone().unwrap_or_default();
    let changes = visible(stream.default_backoff().reflect(writer), version);
    triggers.push(owners(changes, names));
    Owned::new(store, kind.clone(), index)
}

impl Stores {
    /// Starts all watches of `scope`; the stream yields who has to be reconciled.
    pub(crate) fn watch(client: &Client, scope: &Scope, served: Capabilities) -> (Self, Triggers) {
        let mut triggers: Vec<Triggers> = Vec::new();
        let stores = Self {
            ready: Gate::default(),
            deployments: watched(scope.api(client), &(), reduce::deployment, &mut triggers),
            pods: watched(scope.api(client), &(), reduce::pod, &mut triggers),
            routed: routed_kinds(served)
                .into_iter()
                .map(|resource| {
                    let api = scope.dynamic_api(client, &resource);
                    let owned = watched(api, &resource, reduce::routed, &mut triggers);
                    (resource.kind.clone(), (resource, owned))
                })
                .collect(),
            metadata: metadata_kinds()
                .into_iter()
                .map(|resource| {
                    let api: Api<PartialObjectMeta<DynamicObject>> = scope.dynamic_api(client, &resource);
                    let reduce = |object: &mut PartialObjectMeta<_>| reduce::metadata(&mut object.metadata);
                    let owned = watched(api, &resource, reduce, &mut triggers);
                    (key(&resource.api_version, &resource.kind), (resource, owned))
                })
                .collect(),
        };
        (stores, stream::select_all(triggers).boxed())
    }

    /// Waits until every store has been filled once.
    pub(crate) async fn wait_until_ready(&self) -> Result<(), reflector::store::WriterDropped> {
        self.ready.pass(self.all_ready()).await
    }

    async fn all_ready(&self) -> Result<(), reflector::store::WriterDropped> {
        self.deployments.store.wait_until_ready().await?;
        self.pods.store.wait_until_ready().await?;
        for (_, owned) in self.routed.values() {
            owned.store.wait_until_ready().await?;
        }
        for (_, owned) in self.metadata.values() {
            owned.store.wait_until_ready().await?;
        }
        Ok(())
    }

    /// An object that gateways answer to, with its status.
    pub(crate) fn routed(&self, kind: &str, namespace: &str, name: &str) -> Option<Arc<DynamicObject>> {
        self.routed.get(kind)?.1.get(namespace, name)
    }

    /// Metadata of one object, if the operator knows it.
    pub(crate) fn metadata(&self, resource: &ApiResource, namespace: &str, name: &str) -> Option<ObjectMeta> {
        if resource.kind == "Deployment" {
            return Some(self.deployments.get(namespace, name)?.metadata.clone());
        }
        if let Some((_, owned)) = self.routed.get(&resource.kind) {
            return Some(owned.get(namespace, name)?.metadata.clone());
        }
        let (_, owned) = self.metadata.get(&key(&resource.api_version, &resource.kind))?;
        Some(owned.get(namespace, name)?.metadata.clone())
    }

    /// Every object labelled as one of the named resource, with its kind.
    pub(crate) fn of(&self, namespace: &str, name: &str) -> Vec<(ApiResource, ObjectMeta)> {
        let deployment = ApiResource::erase::<Deployment>(&());
        let deployments = self.deployments.of(namespace, name).into_iter();
        let mut found: Vec<_> = deployments
            .map(|object| (deployment.clone(), object.metadata.clone()))
            .collect();
        for (resource, owned) in self.routed.values() {
            let objects = owned.of(namespace, name).into_iter();
            found.extend(objects.map(|object| (resource.clone(), object.metadata.clone())));
        }
        for (resource, owned) in self.metadata.values() {
            let objects = owned.of(namespace, name).into_iter();
            found.extend(objects.map(|object| (resource.clone(), object.metadata.clone())));
        }
        found
    }
}

/// Namespace and name of the resource that an object belongs to, by its label.
fn owner_of<K: Resource>(object: &K) -> Option<(String, String)> {
    let name = object.meta().labels.as_ref()?.get(DEPLOYMENT_LABEL)?.clone();
    Some((object.meta().namespace.clone()?, name))
}

fn key(api_version: &str, kind: &str) -> String {
    format!("{api_version}/{kind}")
}

fn owners<K: Resource + Send + 'static>(
    changes: impl Stream<Item = Result<Seen<K>, watcher::Error>> + Send + 'static,
    names: Index,
) -> Triggers {
    changes
        .filter_map(move |change| {
            let owner = match change {
                Ok(Seen::There(object) | Seen::Gone(Some(object), _)) => owner_of(&object),
                Ok(Seen::Gone(None, (namespace, name))) => names.owner_of(&namespace, &name),
                Err(error) => {
                    // The watch goes on by itself, with back-off.
                    tracing::warn!(%error, "a watch broke off");
                    None
                }
            };
            std::future::ready(owner)
        })
        .boxed()
}

/// The resources themselves: a store of all, and a stream of those that were written by somebody else than us. Our
/// own writes of the status do not count.
pub(crate) fn resources(
    api: Api<DynamicObject>,
    resource: &ApiResource,
) -> (
    Store<DynamicObject>,
    impl Stream<Item = Result<DynamicObject, watcher::Error>> + Send + 'static,
) {
    let writer = reflector::store::Writer::new(resource.clone());
    let store = writer.as_reader();
    let stream = watcher(api, watcher::Config::default().page_size(PAGE))
        .modify(|object| object.metadata.managed_fields = None);
    let mark = |object: &DynamicObject| {
        let leaving = object.metadata.deletion_timestamp.is_some();
        format!("{} {leaving}", live_mark(&object.metadata))
    };
    let of = resource.clone();
    let written = visible(stream.default_backoff().reflect(writer), mark).map(move |change| {
        Ok(match change? {
            Seen::There(object) | Seen::Gone(Some(object), _) => object,
            Seen::Gone(None, (namespace, name)) => DynamicObject::new(&name, &of).within(&namespace),
        })
    });
    (store, written)
}
