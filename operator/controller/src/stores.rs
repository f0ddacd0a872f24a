//! Reduced copies of what the operator made, kept by watches, and who has to be looked at again.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::{Stream, StreamExt, stream};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource, ResourceExt};
use llmd_crds::{HTTPRoute, InferencePool};

use crate::capabilities::Capabilities;
use crate::scope::Scope;

/// Label that names the `LLMDeployment` an object or pod belongs to.
pub(crate) const DEPLOYMENT_LABEL: &str = "llmd.dev/deployment";

/// Names of resources to reconcile: namespace and name.
pub(crate) type Triggers = stream::BoxStream<'static, (String, String)>;

/// Copies by kind. What is not needed for drift, causes and status is dropped on arrival.
pub(crate) struct Stores {
    pub(crate) deployments: Store<Deployment>,
    pub(crate) pods: Store<Pod>,
    /// Kinds whose status gateways write, by kind: metadata and status.
    routed: BTreeMap<String, (ApiResource, Store<DynamicObject>)>,
    /// Kinds of which only the metadata is watched, by `apiVersion/kind`.
    metadata: BTreeMap<String, (ApiResource, Store<PartialObjectMeta<DynamicObject>>)>,
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

impl Stores {
    /// Starts all watches of `scope`; the stream yields who has to be reconciled.
    pub(crate) fn watch(client: &Client, scope: &Scope, served: Capabilities) -> (Self, Triggers) {
        let ours = watcher::Config::default().labels(DEPLOYMENT_LABEL);
        let mut triggers: Vec<Triggers> = Vec::new();
        let (deployments, writer) = reflector::store();
        let stream = watcher(scope.api::<Deployment>(client), ours.clone()).modify(reduce_deployment);
        triggers.push(owners(stream.default_backoff().reflect(writer).touched_objects()));
        let (pods, writer) = reflector::store();
        let stream = watcher(scope.api::<Pod>(client), ours.clone()).modify(reduce_pod);
        triggers.push(owners(stream.default_backoff().reflect(writer).touched_objects()));
        let mut routed = BTreeMap::new();
        for resource in routed_kinds(served) {
            let api: Api<DynamicObject> = scope.dynamic_api(client, &resource);
            let writer = reflector::store::Writer::new(resource.clone());
            let store = writer.as_reader();
            let stream = watcher(api, ours.clone()).modify(reduce_routed);
            triggers.push(owners(stream.default_backoff().reflect(writer).touched_objects()));
            routed.insert(resource.kind.clone(), (resource, store));
        }
        let mut metadata = BTreeMap::new();
        for resource in metadata_kinds() {
            let api: Api<PartialObjectMeta<DynamicObject>> = scope.dynamic_api(client, &resource);
            let writer = reflector::store::Writer::<PartialObjectMeta<DynamicObject>>::new(resource.clone());
            let store = writer.as_reader();
            let stream = watcher(api, ours.clone()).modify(|object| reduce(object.meta_mut()));
            triggers.push(owners(stream.default_backoff().reflect(writer).touched_objects()));
            metadata.insert(key(&resource.api_version, &resource.kind), (resource, store));
        }
        let stores = Self {
            deployments,
            pods,
            routed,
            metadata,
        };
        (stores, stream::select_all(triggers).boxed())
    }

    /// Waits until every store has been filled once.
    pub(crate) async fn wait_until_ready(&self) -> Result<(), reflector::store::WriterDropped> {
        self.deployments.wait_until_ready().await?;
        self.pods.wait_until_ready().await?;
        for (_, store) in self.routed.values() {
            store.wait_until_ready().await?;
        }
        for (_, store) in self.metadata.values() {
            store.wait_until_ready().await?;
        }
        Ok(())
    }

    /// An object that gateways answer to, with its status.
    pub(crate) fn routed(&self, kind: &str, namespace: &str, name: &str) -> Option<Arc<DynamicObject>> {
        let (resource, store) = self.routed.get(kind)?;
        store.get(&ObjectRef::new_with(name, resource.clone()).within(namespace))
    }

    /// Metadata of one object, if the operator knows it.
    pub(crate) fn metadata(
        &self,
        resource: &ApiResource,
        namespace: &str,
        name: &str,
    ) -> Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta> {
        if resource.kind == "Deployment" {
            let object = self.deployments.get(&ObjectRef::new(name).within(namespace))?;
            return Some(object.metadata.clone());
        }
        if self.routed.contains_key(&resource.kind) {
            let object = self.routed(&resource.kind, namespace, name)?;
            return Some(object.metadata.clone());
        }
        let (resource, store) = self.metadata.get(&key(&resource.api_version, &resource.kind))?;
        let reference = ObjectRef::new_with(name, resource.clone()).within(namespace);
        Some(store.get(&reference)?.metadata.clone())
    }

    /// Every object labelled as one of the named resource, with its kind.
    pub(crate) fn of(
        &self,
        namespace: &str,
        name: &str,
    ) -> Vec<(
        ApiResource,
        k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    )> {
        let deployment = ApiResource::erase::<Deployment>(&());
        let deployments = self.deployments.state().into_iter();
        let mut found: Vec<_> = deployments
            .filter(|object| belongs(&**object, namespace, name))
            .map(|object| (deployment.clone(), object.metadata.clone()))
            .collect();
        for (resource, store) in self.routed.values() {
            let objects = store.state().into_iter();
            found.extend(
                objects
                    .filter(|object| belongs(&**object, namespace, name))
                    .map(|object| (resource.clone(), object.metadata.clone())),
            );
        }
        for (resource, store) in self.metadata.values() {
            let objects = store.state().into_iter();
            found.extend(
                objects
                    .filter(|object| belongs(&**object, namespace, name))
                    .map(|object| (resource.clone(), object.metadata.clone())),
            );
        }
        found
    }
}

/// Whether an object carries the label of the named resource.
pub(crate) fn belongs<K: Resource>(object: &K, namespace: &str, name: &str) -> bool {
    object.meta().namespace.as_deref() == Some(namespace)
        && object.labels().get(DEPLOYMENT_LABEL).map(String::as_str) == Some(name)
}

fn key(api_version: &str, kind: &str) -> String {
    format!("{api_version}/{kind}")
}

fn owners<K: Resource + Send + 'static>(
    objects: impl Stream<Item = Result<K, watcher::Error>> + Send + 'static,
) -> Triggers {
    objects
        .filter_map(|object| async move {
            match object {
                Ok(object) => {
                    let name = object.labels().get(DEPLOYMENT_LABEL)?.clone();
                    Some((object.meta().namespace.clone()?, name))
                }
                Err(error) => {
                    // The watch goes on by itself, with back-off.
                    tracing::warn!(%error, "a watch broke off");
                    None
                }
            }
        })
        .boxed()
}

fn reduce(meta: &mut k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) {
    meta.managed_fields = None;
}

fn reduce_deployment(deployment: &mut Deployment) {
    reduce(&mut deployment.metadata);
    if let Some(spec) = &mut deployment.spec {
        spec.template = k8s_openapi::api::core::v1::PodTemplateSpec::default();
    }
}

/// Keeps the metadata and the status.
fn reduce_routed(object: &mut DynamicObject) {
    reduce(&mut object.metadata);
    object.data = serde_json::json!({"status": object.data["status"].take()});
}

/// Keeps the metadata, the node and the status of a pod.
fn reduce_pod(pod: &mut Pod) {
    reduce(&mut pod.metadata);
    pod.metadata.annotations = None;
    if let Some(spec) = &mut pod.spec {
        *spec = k8s_openapi::api::core::v1::PodSpec {
            node_name: spec.node_name.take(),
            ..k8s_openapi::api::core::v1::PodSpec::default()
        };
    }
}
