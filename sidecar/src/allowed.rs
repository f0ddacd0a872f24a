//! Which engines requests may name: the pods of an InferencePool, followed on the API server (SSRF protection).
//!
//! ```text
//!  InferencePool ─selector─▶ pods ─▶ names and addresses ─▶ is this host one of them?
//! ```
//!
//! Source: llm-d-router `pkg/sidecar/proxy/allowlist.go`.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Client, Config, ResourceExt};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::hosts;

/// Longest wait for the pool and its pods at the start.
const FIRST_LIST: Duration = Duration::from_secs(60);

/// A pool, and the version that serves its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pool {
    pub(crate) group: String,
    pub(crate) version: &'static str,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// Why nobody can be allowed.
#[derive(Debug, thiserror::Error)]
pub enum AllowError {
    /// Nothing says how to reach the API server.
    #[error("--enable-ssrf-protection: no Kubernetes client: {0}; mount the ServiceAccount's token")]
    Client(String),
    /// It did not answer with what is needed.
    #[error(
        "--enable-ssrf-protection: the pods of InferencePool {pool} were not listed within {FIRST_LIST:?}: {cause}; the pool has to exist, and the ServiceAccount needs get, list and watch on inferencepools and pods"
    )]
    Late {
        /// Namespace and name.
        pool: String,
        /// What happened last.
        cause: String,
    },
}

/// Names and addresses of the pool's pods.
#[derive(Clone, Debug, Default)]
pub(crate) struct Allowed(Arc<RwLock<HashSet<String>>>);

impl Allowed {
    /// Whether `endpoint`, with or without a port, is a pod of the pool.
    pub(crate) fn has(&self, endpoint: &str) -> bool {
        let hosts = self.0.read().unwrap_or_else(PoisonError::into_inner);
        hosts.contains(hosts::bare(endpoint))
    }

    fn set(&self, pods: &BTreeMap<String, Option<String>>) {
        let names = pods
            .iter()
            .filter(|(_, address)| address.is_some())
            .map(|(name, _)| name);
        let all = names.chain(pods.values().flatten()).cloned().collect();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = all;
    }
}

/// The list, as long as this lives.
pub(crate) struct Following {
    pub(crate) allowed: Allowed,
    _task: AbortOnDropHandle<()>,
}

/// Follows the pool; returns when its pods are known.
///
/// # Errors
/// There is no way to the API server, or it did not list them in time.
pub(crate) async fn follow(pool: Pool) -> Result<Following, AllowError> {
    let config = Config::infer()
        .await
        .map_err(|error| AllowError::Client(error.to_string()))?;
    let client = Client::try_from(config).map_err(|error| AllowError::Client(error.to_string()))?;
    follow_with(client, pool).await
}

async fn follow_with(client: Client, pool: Pool) -> Result<Following, AllowError> {
    let allowed = Allowed::default();
    let (known, mut is_known) = tokio::sync::watch::channel(Err("no answer of the API server".to_owned()));
    let name = format!("{}/{}", pool.namespace, pool.name);
    let task = Follower {
        client,
        pool,
        allowed: allowed.clone(),
        known,
    };
    let task = AbortOnDropHandle::new(tokio::spawn(task.run()));
    let listed = timeout(FIRST_LIST, is_known.wait_for(Result::is_ok))
        .await
        .is_ok_and(|known| known.is_ok());
    if listed {
        return Ok(Following { allowed, _task: task });
    }
    let cause = is_known.borrow().clone().err().unwrap_or_default();
    Err(AllowError::Late { pool: name, cause })
}

/// Whether the pods were listed, or what prevented it.
type Known = tokio::sync::watch::Sender<Result<(), String>>;

struct Follower {
    client: Client,
    pool: Pool,
    allowed: Allowed,
    known: Known,
}

impl Follower {
    async fn run(self) {
        let kind = GroupVersionKind::gvk(&self.pool.group, self.pool.version, "InferencePool");
        let resource = ApiResource::from_gvk_with_plural(&kind, "inferencepools");
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), &self.pool.namespace, &resource);
        let config = watcher::Config::default().fields(&format!("metadata.name={}", self.pool.name));
        let mut pools = std::pin::pin!(watch(api, config).default_backoff());
        let mut selector: Option<String> = None;
        let mut pods = None;
        let mut listed = false;
        loop {
            let said = tokio::select! {
                event = pools.next() => match event {
                    Some(Ok(Event::Apply(object) | Event::InitApply(object))) => {
                        listed = true;
                        Some(selector_of(&object))
                    }
                    Some(Ok(Event::Init)) => {
                        listed = false;
                        None
                    }
                    // A list without it: it was deleted while nobody watched.
                    Some(Ok(Event::InitDone)) if !listed => Some(None),
                    Some(Ok(Event::Delete(_))) => Some(None),
                    Some(Ok(Event::InitDone)) => None,
                    Some(Err(error)) => {
                        self.failed("inferencepools", &error);
                        None
                    }
                    None => return,
                },
                () = follow_pods(&mut pods, &self.allowed, &self.known) => None,
            };
            let Some(now) = said.filter(|now| *now != selector) else {
                continue;
            };
            selector = now;
            pods = selector.as_deref().map(|selector| self.pods(selector));
            if pods.is_none() {
                tracing::warn!(
                    pool = self.pool.name,
                    "the pool is gone or selects nothing: no engine may be named"
                );
                self.allowed.set(&BTreeMap::new());
            }
        }
    }

    fn pods(&self, selector: &str) -> Pods {
        let api = Api::<Pod>::namespaced(self.client.clone(), &self.pool.namespace);
        let events = watch(api, watcher::Config::default().labels(selector)).default_backoff();
        Pods {
            events: Box::pin(events),
            known: BTreeMap::new(),
            listing: BTreeMap::new(),
        }
    }

    fn failed(&self, what: &str, error: &watcher::Error) {
        tracing::warn!(%error, "{what} cannot be followed; what is known stays");
        failed(&self.known, what, error);
    }
}

fn failed(known: &Known, what: &str, error: &watcher::Error) {
    known.send_if_modified(|known| {
        let is_waited_for = known.is_err();
        if is_waited_for {
            *known = Err(format!("{what}: {error}"));
        }
        is_waited_for
    });
}

type Events = std::pin::Pin<Box<dyn Stream<Item = Result<Event<Pod>, watcher::Error>> + Send>>;

/// The pods of one selector, by name.
struct Pods {
    events: Events,
    known: BTreeMap<String, Option<String>>,
    listing: BTreeMap<String, Option<String>>,
}

/// Takes one change over; waits for ever where no pods are followed.
async fn follow_pods(pods: &mut Option<Pods>, allowed: &Allowed, known: &Known) {
    let Some(pods) = pods else {
        return std::future::pending().await;
    };
    let entry = |pod: &Pod| {
        let address = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
        (pod.name_any(), address)
    };
    match pods.events.next().await {
        Some(Ok(Event::Init)) => pods.listing.clear(),
        Some(Ok(Event::InitApply(pod))) => pods.listing.extend([entry(&pod)]),
        Some(Ok(Event::InitDone)) => {
            pods.known = std::mem::take(&mut pods.listing);
            allowed.set(&pods.known);
            known.send_if_modified(|known| std::mem::replace(known, Ok(())).is_err());
        }
        Some(Ok(Event::Apply(pod))) => {
            pods.known.extend([entry(&pod)]);
            allowed.set(&pods.known);
        }
        Some(Ok(Event::Delete(pod))) => {
            pods.known.remove(&pod.name_any());
            allowed.set(&pods.known);
        }
        Some(Err(error)) => {
            tracing::warn!(%error, "pods cannot be followed; what is known stays");
            failed(known, "pods", &error);
        }
        None => std::future::pending().await,
    }
}

/// The label selector of a pool: `spec.selector.matchLabels`, in the alpha version `spec.selector` itself. Sorted, so
/// that the same labels are the same text.
fn selector_of(pool: &DynamicObject) -> Option<String> {
    let selector = pool.data.get("spec")?.get("selector")?;
    let labels = selector.get("matchLabels").unwrap_or(selector).as_object()?;
    let labels: BTreeMap<_, _> = labels
        .iter()
        .filter_map(|(key, value)| Some((key, value.as_str()?)))
        .collect();
    let terms: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    // An empty selector would be every pod.
    (!terms.is_empty()).then(|| terms.join(","))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pods_with_an_address_are_allowed_by_it_and_by_name() {
        let allowed = Allowed::default();
        let pods = [("a", Some("10.0.0.1")), ("b", None), ("c", Some("fd00::1"))];
        let pods = pods.map(|(name, address)| (name.to_owned(), address.map(str::to_owned)));
        allowed.set(&pods.into());
        for (endpoint, is_allowed) in [
            ("10.0.0.1:8000", true),
            ("http://10.0.0.1:1", true),
            ("a", true),
            ("a:80", true),
            ("b:80", false),
            ("[fd00::1]:8000", true),
            ("10.0.0.2:8000", false),
            ("10.0.0.1.evil.example:8000", false),
            ("10.0.0.1@evil.example:80", false),
            ("", false),
        ] {
            assert_eq!(allowed.has(endpoint), is_allowed, "{endpoint}");
        }
    }

    #[test]
    fn both_versions_of_a_pool_name_their_labels() {
        let pool = |spec: serde_json::Value| {
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("g", "v1", "InferencePool"));
            selector_of(&DynamicObject::new("p", &resource).data(json!({ "spec": spec })))
        };
        let labels = json!({"b": "2", "a": "1"});
        assert_eq!(
            pool(json!({"selector": {"matchLabels": labels}})).as_deref(),
            Some("a=1,b=2")
        );
        assert_eq!(pool(json!({"selector": labels})).as_deref(), Some("a=1,b=2"));
        assert_eq!(pool(json!({"selector": {"matchLabels": {}}})), None);
        assert_eq!(pool(json!({})), None);
    }
}
