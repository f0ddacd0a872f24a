//! Reduced copies of what the operator made, kept by watches, and who has to be looked at again.

mod kept;
mod owned;
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
use llmd_crds::{DisaggregatedSet, HTTPRoute, InferencePool, LeaderWorkerSet, ResourceClaimTemplate};

use crate::capabilities::Capabilities;
use crate::scope::Scope;

pub(crate) use kept::{Identity, Kept, Rollout, live_mark};
use owned::{Owned, WatchEnded};
use visible::{Seen, visible};

/// Label that names the `LLMDeployment` an object or pod belongs to.
pub(crate) const DEPLOYMENT_LABEL: &str = "llmd.dev/deployment";
/// Label that names the pool a pod belongs to.
pub(crate) const POOL_LABEL: &str = "llmd.dev/pool";
/// Label that names what engines of all roles share.
pub(crate) const REVISION_LABEL: &str = "llmd.dev/revision";

/// Objects of one answer when a watch begins: whole objects arrive, and a fraction of each is kept.
const PAGE: u32 = 50;

/// Names of resources to reconcile: namespace and name.
pub(crate) type Triggers = stream::BoxStream<'static, (String, String)>;

/// Copies by kind. What is not needed for drift, causes and status is dropped on arrival.
pub(crate) struct Stores {
    pub(crate) deployments: Owned<Rollout>,
    /// `LeaderWorkerSet`s, where they are served.
    groups: Option<Owned<Rollout>>,
    pub(crate) pods: Owned<Pod>,
    /// Kinds whose status gateways write, by kind: status.
    routed: BTreeMap<String, (ApiResource, Owned<DynamicObject>)>,
    /// Kinds of which only the metadata is watched, by `apiVersion/kind`.
    metadata: BTreeMap<String, (ApiResource, Owned<()>)>,
}

fn kind(group: &str, version: &str, kind: &str) -> ApiResource {
    ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk(group, version, kind))
}

fn groups_kind() -> ApiResource {
    kind("leaderworkerset.x-k8s.io", "v1", LeaderWorkerSet::KIND)
}

/// Kinds that the operator makes beside Deployments, and whose status nobody needs.
fn metadata_kinds(served: Capabilities) -> Vec<ApiResource> {
    let sets = served
        .disaggregated_set
        .then(|| kind("disaggregatedset.x-k8s.io", "v1", DisaggregatedSet::KIND));
    let claims = served
        .resource_claims
        .then(|| kind(ResourceClaimTemplate::GROUP, "v1", ResourceClaimTemplate::KIND));
    let always = [
        kind("", "v1", "ServiceAccount"),
        kind("", "v1", "ConfigMap"),
        kind("", "v1", "Service"),
        kind("rbac.authorization.k8s.io", "v1", "Role"),
        kind("rbac.authorization.k8s.io", "v1", "RoleBinding"),
        kind("policy", "v1", "PodDisruptionBudget"),
        kind("networking.k8s.io", "v1", "NetworkPolicy"),
    ];
    always.into_iter().chain(sets).chain(claims).collect()
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
fn watched<K, T>(api: Api<K>, reduce: fn(K) -> (ObjectMeta, T), triggers: &mut Vec<Triggers>) -> Owned<T>
where
    K: Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + Sync + 'static,
    T: Send + Sync + 'static,
{
    let ours = watcher::Config::default()
        .labels(DEPLOYMENT_LABEL)
        .page_size(PAGE);
    let (owned, changes) = Owned::fill(watcher(api, ours).default_backoff(), reduce);
    let owners = changes.filter_map(|change| {
        let owner = match change {
            Ok((namespace, name)) => Some((namespace.to_string(), name.to_string())),
            Err(error) => {
                // The watch goes on by itself, with back-off.
                tracing::warn!(%error, "a watch broke off");
                None
            }
        };
        std::future::ready(owner)
    });
    triggers.push(owners.boxed());
    owned
}

impl Stores {
    /// Starts all watches of `scope`; the stream yields who has to be reconciled.
    pub(crate) fn watch(client: &Client, scope: &Scope, served: Capabilities) -> (Self, Triggers) {
        let mut triggers: Vec<Triggers> = Vec::new();
        let stores = Self {
            deployments: watched(scope.api(client), kept::rollout, &mut triggers),
            groups: served.leader_worker_set.then(|| {
                let api: Api<DynamicObject> = scope.dynamic_api(client, &groups_kind());
                watched(api, kept::group, &mut triggers)
            }),
            pods: watched(scope.api(client), kept::pod, &mut triggers),
            routed: routed_kinds(served)
                .into_iter()
                .map(|resource| {
                    let api = scope.dynamic_api(client, &resource);
                    let owned = watched(api, kept::routed, &mut triggers);
                    (resource.kind.clone(), (resource, owned))
                })
                .collect(),
            metadata: metadata_kinds(served)
                .into_iter()
                .map(|resource| {
                    let api: Api<PartialObjectMeta<DynamicObject>> = scope.dynamic_api(client, &resource);
                    let owned = watched(api, |object| (object.metadata, ()), &mut triggers);
                    (key(&resource.api_version, &resource.kind), (resource, owned))
                })
                .collect(),
        };
        (stores, stream::select_all(triggers).boxed())
    }

    /// Waits until every store has been filled once.
    pub(crate) async fn filled(&self) -> Result<(), WatchEnded> {
        self.deployments.filled().await?;
        self.pods.filled().await?;
        if let Some(groups) = &self.groups {
            groups.filled().await?;
        }
        for (_, owned) in self.routed.values() {
            owned.filled().await?;
        }
        for (_, owned) in self.metadata.values() {
            owned.filled().await?;
        }
        Ok(())
    }

    /// An object that gateways answer to, with its status.
    pub(crate) fn routed(&self, kind: &str, namespace: &str, name: &str) -> Option<Arc<Kept<DynamicObject>>> {
        self.routed.get(kind)?.1.get(namespace, name)
    }

    /// Workloads of a pool, of all revisions.
    pub(crate) fn workloads(
        &self,
        namespace: &str,
        name: &str,
        pool: &str,
    ) -> Vec<(ApiResource, Arc<Kept<Rollout>>)> {
        let deployment = ApiResource::erase::<Deployment>(&());
        let deployments = self.deployments.of(namespace, name);
        let deployments = deployments.into_iter().map(|kept| (deployment.clone(), kept));
        let groups = self.groups.iter().flat_map(|groups| groups.of(namespace, name));
        let groups = groups.map(|kept| (groups_kind(), kept));
        deployments
            .chain(groups)
            .filter(|(_, kept)| &*kept.pool == pool)
            .collect()
    }

    /// How far the engines of a pool are: a Deployment's pods, or a LeaderWorkerSet's groups.
    pub(crate) fn engines(
        &self,
        is_grouped: bool,
        namespace: &str,
        name: &str,
    ) -> Option<Arc<Kept<Rollout>>> {
        if is_grouped {
            self.groups.as_ref()?.get(namespace, name)
        } else {
            self.deployments.get(namespace, name)
        }
    }

    /// One object, if the operator knows it.
    pub(crate) fn identity(&self, resource: &ApiResource, namespace: &str, name: &str) -> Option<Identity> {
        if resource.kind == "Deployment" {
            return Some(self.deployments.get(namespace, name)?.identity.clone());
        }
        if resource.kind == LeaderWorkerSet::KIND {
            return Some(self.groups.as_ref()?.get(namespace, name)?.identity.clone());
        }
        if let Some((_, owned)) = self.routed.get(&resource.kind) {
            return Some(owned.get(namespace, name)?.identity.clone());
        }
        let (_, owned) = self.metadata.get(&key(&resource.api_version, &resource.kind))?;
        Some(owned.get(namespace, name)?.identity.clone())
    }

    /// Every object labelled as one of the named resource: its kind, its name, what it is.
    pub(crate) fn of(&self, namespace: &str, name: &str) -> Vec<(ApiResource, String, Identity)> {
        fn all<T: Send + Sync + 'static>(
            resource: &ApiResource,
            owned: &Owned<T>,
            namespace: &str,
            name: &str,
            found: &mut Vec<(ApiResource, String, Identity)>,
        ) {
            let objects = owned.of(namespace, name).into_iter();
            found
                .extend(objects.map(|kept| (resource.clone(), kept.name.to_string(), kept.identity.clone())));
        }
        let mut found = Vec::new();
        let deployment = ApiResource::erase::<Deployment>(&());
        all(&deployment, &self.deployments, namespace, name, &mut found);
        if let Some(groups) = &self.groups {
            all(&groups_kind(), groups, namespace, name, &mut found);
        }
        for (resource, owned) in self.routed.values() {
            all(resource, owned, namespace, name, &mut found);
        }
        for (resource, owned) in self.metadata.values() {
            all(resource, owned, namespace, name, &mut found);
        }
        found
    }
}

fn key(api_version: &str, kind: &str) -> String {
    format!("{api_version}/{kind}")
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
        format!("{:x} {leaving}", live_mark(&object.metadata))
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
