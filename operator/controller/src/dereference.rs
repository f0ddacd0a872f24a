//! What a resource refers to: paths and accelerator profiles, from caches.

use std::fmt::Debug;

use futures_util::{Stream, StreamExt};
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use llmd_crds::{AcceleratorProfile, WellLitPath};
use llmd_render::{Document, decode_value};
use serde_json::Value;

use crate::gate::Gate;

/// The cluster's WellLitPaths and AcceleratorProfiles.
pub(crate) struct References {
    pub(crate) paths: Store<DynamicObject>,
    pub(crate) accelerators: Store<DynamicObject>,
    ready: Gate,
}

impl References {
    /// Starts both watches; the stream yields on every change.
    pub(crate) fn watch(client: &Client) -> (Self, impl Stream<Item = ()> + Send + 'static) {
        let (paths, path_changes) = watched(client, &ApiResource::erase::<WellLitPath>(&()));
        let (accelerators, profile_changes) = watched(client, &ApiResource::erase::<AcceleratorProfile>(&()));
        let references = Self {
            paths,
            accelerators,
            ready: Gate::default(),
        };
        (
            references,
            futures_util::stream::select(path_changes, profile_changes),
        )
    }

    /// Waits until the paths have been read once.
    pub(crate) async fn wait_until_ready(&self) -> Result<(), reflector::store::WriterDropped> {
        self.ready.pass(self.paths.wait_until_ready()).await
    }

    /// Those that can be read; an unreadable one is reported in its own status.
    pub(crate) fn paths(&self) -> Vec<WellLitPath> {
        decoded(&self.paths, |document| match document {
            Document::Path(path) => Some(*path),
            _ => None,
        })
    }

    /// Likewise.
    pub(crate) fn accelerators(&self) -> Vec<AcceleratorProfile> {
        decoded(&self.accelerators, |document| match document {
            Document::Accelerator(profile) => Some(*profile),
            _ => None,
        })
    }
}

/// Watched as untyped objects: one that cannot be read must not stop the others.
fn watched(
    client: &Client,
    resource: &ApiResource,
) -> (
    Store<DynamicObject>,
    impl Stream<Item = ()> + Send + 'static + use<>,
) {
    let writer = reflector::store::Writer::new(resource.clone());
    let store = writer.as_reader();
    let api: Api<DynamicObject> = Api::all_with(client.clone(), resource);
    let changes = watcher(api, watcher::Config::default())
        .modify(|object| object.metadata.managed_fields = None)
        .default_backoff()
        .reflect(writer)
        .touched_objects()
        .filter_map(|object| async move { object.ok().map(|_| ()) });
    (store, changes)
}

fn decoded<T: Debug>(store: &Store<DynamicObject>, take: impl Fn(Document) -> Option<T>) -> Vec<T> {
    let mut found: Vec<(String, T)> = store
        .state()
        .into_iter()
        .filter_map(|object| {
            let name = object.metadata.name.clone()?;
            Some((name, take(decode_value(without_status(&object)).ok()?)?))
        })
        .collect();
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    found.into_iter().map(|(_, one)| one).collect()
}

/// The object as its author wrote it.
pub(crate) fn without_status(object: &DynamicObject) -> Value {
    let mut value = serde_json::to_value(object).unwrap_or(Value::Null);
    if let Some(members) = value.as_object_mut() {
        members.remove("status");
    }
    value
}
