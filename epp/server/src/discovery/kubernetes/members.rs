//! The members of the pool: its specification and its pods, turned into endpoints on every change.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::watcher;
use kube::{Client, Resource};

use super::groups;
use super::pods::{self, PodFacts, PodObject};
use super::pool::{PoolError, PoolSpec};
use crate::datalayer::DataLayer;
use crate::flags::{Membership, PoolOptions};
use crate::health::Health;
use crate::kubernetes::cause::{READ, Subject};
use crate::kubernetes::watch::{Update, Updates, Watch};
use crate::kubernetes::watch_metrics::WatchMetrics;

const NO_POOLS: &str =
    "install its CRD with 'llmd crds apply --with gaie', or select pods with --endpoint-selector";
const NO_PODS: &str = "this is not the API server of a Kubernetes cluster";

/// A pool as the watch delivers it; `None` while it is being deleted.
type PoolState = Option<Result<PoolSpec, PoolError>>;

pub(super) struct Members {
    client: Client,
    options: PoolOptions,
    namespace: Arc<str>,
    layer: DataLayer,
    health: Health,
    supports: Box<dyn Fn(&str) -> bool + Send + Sync>,
    metrics: WatchMetrics,
    pool: Option<PoolSpec>,
    /// By name; what the last complete list and the changes since then said.
    pods: BTreeMap<Arc<str>, PodFacts>,
    /// The pods of this selector have been listed.
    listed: bool,
    /// What was published last is out of date.
    changed: bool,
    pod_updates: Option<Updates<PodFacts>>,
}

impl Members {
    pub(super) fn new(
        client: Client,
        options: PoolOptions,
        layer: DataLayer,
        health: Health,
        supports: Box<dyn Fn(&str) -> bool + Send + Sync>,
        metrics: WatchMetrics,
    ) -> Self {
        Self {
            namespace: options.namespace.as_str().into(),
            client,
            options,
            layer,
            health,
            supports,
            metrics,
            pool: None,
            pods: BTreeMap::new(),
            listed: false,
            changed: false,
            pod_updates: None,
        }
    }

    /// Follows the pool until the task is dropped.
    pub(super) async fn run(mut self) {
        let mut pool_updates = match self.options.membership.clone() {
            Some(Membership::InferencePool { group, version }) => Some(self.watch_pool(group, version)),
            Some(Membership::Selector { labels, ports }) => {
                self.set_pool(Some(PoolSpec {
                    labels,
                    ports,
                    app_protocol: "http".to_owned(),
                }));
                None
            }
            None => return,
        };
        loop {
            let arrived = tokio::select! {
                update = next(&mut pool_updates) => update.map(|update| self.on_pool(update)),
                update = next(&mut self.pod_updates) => update.map(|update| self.on_pods(update)),
            };
            if arrived.is_none() {
                // Watches have no end: this one panicked. Not ready, the process is started again.
                tracing::error!("a watch of the API server ended by itself; this is a defect");
                self.health.set_synced(false);
                return;
            }
            if std::mem::take(&mut self.changed) {
                self.publish();
            }
        }
    }

    fn watch_pool(&self, group: &str, version: &str) -> Updates<PoolState> {
        let kind = GroupVersionKind::gvk(group, version, "InferencePool");
        let resource = ApiResource::from_gvk_with_plural(&kind, "inferencepools");
        let watch = Watch::<DynamicObject> {
            api: Api::namespaced_with(self.client.clone(), &self.namespace, &resource),
            config: watcher::Config::default().fields(&format!("metadata.name={}", self.options.name)),
            subject: self.subject(format!("inferencepools.{group}/{version}"), NO_POOLS),
            metrics: self.metrics.clone(),
        };
        watch.start(|pool| {
            pool.meta()
                .deletion_timestamp
                .is_none()
                .then(|| PoolSpec::of(&pool))
        })
    }

    fn watch_pods(&self, pool: &PoolSpec) -> Updates<PodFacts> {
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("", "v1", "Pod"), "pods");
        let watch = Watch::<PodObject> {
            api: Api::namespaced_with(self.client.clone(), &self.namespace, &resource),
            config: watcher::Config::default().labels(&pool.selector()),
            subject: self.subject("pods".to_owned(), NO_PODS),
            metrics: self.metrics.clone(),
        };
        watch.start(PodFacts::of)
    }

    fn subject(&self, resource: String, when_missing: &'static str) -> Subject {
        Subject {
            resource,
            namespace: self.options.namespace.clone(),
            verbs: READ,
            when_missing,
        }
    }

    fn on_pool(&mut self, update: Update<PoolState>) {
        let state = match update {
            Update::All(pools) => pools.into_iter().next().flatten(),
            Update::Set(state) => state,
            Update::Gone(_) => None,
            Update::Stale(_) => return,
        };
        let (name, namespace) = (&self.options.name, &self.options.namespace);
        match state {
            Some(Ok(pool)) => self.set_pool(Some(pool)),
            Some(Err(error)) => {
                tracing::error!(%error, "InferencePool {namespace}/{name} cannot be used; it stays as it was");
            }
            None => {
                tracing::warn!("InferencePool {namespace}/{name} does not exist: no requests until it does");
                self.set_pool(None);
            }
        }
    }

    fn set_pool(&mut self, pool: Option<PoolSpec>) {
        if self.pool == pool {
            return;
        }
        let selector = |pool: &Option<PoolSpec>| pool.as_ref().map(PoolSpec::selector);
        if selector(&self.pool) != selector(&pool) {
            // Pods that the new selector takes too go on without a gap; the others leave now.
            self.listed = false;
            self.pod_updates = pool.as_ref().map(|pool| self.watch_pods(pool));
        }
        if let Some(pool) = &pool {
            let supported = (self.supports)(&pool.app_protocol);
            if !supported {
                tracing::error!(
                    protocol = pool.app_protocol,
                    "no configured parser serves this pool's appProtocol: the picker is not ready"
                );
            }
            self.health.set_protocol_supported(supported);
            tracing::info!(selector = pool.selector(), ports = ?pool.ports, "the pool");
        } else {
            self.pods.clear();
        }
        self.pool = pool;
        self.changed = true;
    }

    fn on_pods(&mut self, update: Update<PodFacts>) {
        self.apply(update);
        // A rollout changes many pods at once: one new set for all that have arrived.
        while let Some(updates) = &mut self.pod_updates
            && let Ok(update) = updates.receiver.try_recv()
        {
            self.apply(update);
        }
    }

    fn apply(&mut self, update: Update<PodFacts>) {
        match update {
            Update::All(pods) => {
                self.pods = pods.into_iter().map(|pod| (Arc::clone(&pod.name), pod)).collect();
                self.listed = true;
                self.changed = true;
            }
            // Most changes of a pod (a container's state, a time stamp) are none for us.
            Update::Set(pod) => {
                let known = self.pods.insert(Arc::clone(&pod.name), pod.clone());
                self.changed |= known.as_ref() != Some(&pod);
            }
            Update::Gone(pod) => {
                self.changed |= self.pods.remove(&pod.name).is_some();
            }
            Update::Stale(_) => {}
        }
    }

    fn publish(&mut self) {
        let Some(pool) = &self.pool else {
            self.layer.set_endpoints(Vec::new());
            self.health.set_synced(false);
            return;
        };
        let broken = groups::broken(self.pods.values());
        let is_whole = |pod: &&PodFacts| groups::of(pod).is_none_or(|group| !broken.contains(group));
        let endpoints = self.pods.values().filter(is_whole);
        let endpoints = endpoints.flat_map(|pod| pods::endpoints(pod, pool, &self.namespace));
        self.layer.set_endpoints(endpoints.collect());
        if self.listed {
            self.health.set_synced(true);
        }
    }
}

async fn next<T>(updates: &mut Option<Updates<T>>) -> Option<Update<T>> {
    match updates {
        Some(updates) => updates.receiver.recv().await,
        None => std::future::pending().await,
    }
}
