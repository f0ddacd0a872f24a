//! Copies of one kind, by the resource they belong to; filled by a watch.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::{Stream, StreamExt, stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::runtime::watcher::{self, Event};
use tokio::sync::watch;

use super::kept::{Kept, Key};

/// Copies of one kind.
pub(crate) struct Owned<T> {
    held: Arc<Mutex<Held<T>>>,
    is_filled: watch::Receiver<bool>,
}

/// The watch is over: nothing will be filled any more.
#[derive(Debug)]
pub(crate) struct WatchEnded;

struct Held<T> {
    objects: HashMap<Key, Arc<Kept<T>>>,
    owned: HashMap<Key, Vec<Arc<Kept<T>>>>,
    /// Of a list that is under way: it takes the place of `objects` as a whole at its end, so that nobody sees half
    /// of it.
    listed: Vec<Kept<T>>,
}

impl<T: Send + Sync + 'static> Owned<T> {
    /// Keeps of `events` what `reduce` leaves. The stream fills the copies while it is polled, and yields the resources
    /// whose objects changed, after the change can be seen here.
    pub(super) fn fill<K: Resource + Send + 'static>(
        events: impl Stream<Item = Result<Event<K>, watcher::Error>> + Send + 'static,
        reduce: fn(K) -> (ObjectMeta, T),
    ) -> (
        Self,
        impl Stream<Item = Result<Key, watcher::Error>> + Send + 'static,
    ) {
        let held = Arc::new(Mutex::new(Held::default()));
        let (fill, is_filled) = watch::channel(false);
        let copies = Arc::clone(&held);
        let changes = events.flat_map(move |event| {
            let changed = event.map(|event| {
                let is_end = matches!(event, Event::InitDone);
                let changed = lock(&copies).take(event, reduce);
                if is_end {
                    fill.send_replace(true);
                }
                changed
            });
            stream::iter(match changed {
                Ok(owners) => owners.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            })
        });
        (Self { held, is_filled }, changes)
    }

    /// Waits until the first list is there.
    pub(super) async fn filled(&self) -> Result<(), WatchEnded> {
        let mut is_filled = self.is_filled.clone();
        let filled = is_filled.wait_for(|is_filled| *is_filled).await;
        filled.map(drop).map_err(|_| WatchEnded)
    }

    /// One object.
    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Arc<Kept<T>>> {
        lock(&self.held).objects.get(&key(namespace, name)).cloned()
    }

    /// Those of the named resource, by name.
    pub(crate) fn of(&self, namespace: &str, name: &str) -> Vec<Arc<Kept<T>>> {
        let held = lock(&self.held);
        held.owned.get(&key(namespace, name)).cloned().unwrap_or_default()
    }
}

fn lock<T>(held: &Mutex<Held<T>>) -> MutexGuard<'_, Held<T>> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

fn key(namespace: &str, name: &str) -> Key {
    (namespace.into(), name.into())
}

impl<T> Default for Held<T> {
    fn default() -> Self {
        Self {
            objects: HashMap::new(),
            owned: HashMap::new(),
            listed: Vec::new(),
        }
    }
}

impl<T> Held<T> {
    /// Takes the event over and returns the resources it is about.
    fn take<K: Resource>(&mut self, event: Event<K>, reduce: fn(K) -> (ObjectMeta, T)) -> Vec<Key> {
        let kept = |object| {
            let (meta, content) = reduce(object);
            Kept::new(&meta, content)
        };
        match event {
            Event::Init => {
                self.listed.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                self.listed.extend(kept(object));
                Vec::new()
            }
            Event::InitDone => self.replace(),
            Event::Apply(object) => kept(object).map(|kept| self.put(kept)).unwrap_or_default(),
            Event::Delete(object) => {
                let meta = object.meta();
                let namespace = meta.namespace.as_deref().unwrap_or_default();
                let name = meta.name.as_deref().unwrap_or_default();
                self.remove(&key(namespace, name)).into_iter().collect()
            }
        }
    }

    fn replace(&mut self) -> Vec<Key> {
        let listed = std::mem::take(&mut self.listed);
        let there: std::collections::HashSet<Key> = listed.iter().map(Kept::key).collect();
        let gone: Vec<Key> = self
            .objects
            .keys()
            .filter(|key| !there.contains(*key))
            .cloned()
            .collect();
        let mut changed: Vec<Key> = listed.into_iter().flat_map(|kept| self.put(kept)).collect();
        changed.extend(gone.iter().filter_map(|key| self.remove(key)));
        self.objects.shrink_to_fit();
        changed
    }

    /// The same version again changes nothing.
    fn put(&mut self, kept: Kept<T>) -> Vec<Key> {
        let key = kept.key();
        let known = self.objects.get(&key);
        if known.is_some_and(|known| {
            known.owner == kept.owner
                && known.identity.uid == kept.identity.uid
                && known.identity.version == kept.identity.version
        }) {
            return Vec::new();
        }
        // Another resource's until now: that one has to look, too.
        let mut changed: Vec<Key> = self
            .remove(&key)
            .filter(|owner| *owner != kept.owner)
            .into_iter()
            .collect();
        changed.push(kept.owner.clone());
        let kept = Arc::new(kept);
        let owned = self.owned.entry(kept.owner.clone()).or_default();
        let place = owned.partition_point(|other| other.name < kept.name);
        owned.insert(place, Arc::clone(&kept));
        self.objects.insert(key, kept);
        changed
    }

    /// Whose it was.
    fn remove(&mut self, key: &Key) -> Option<Key> {
        let kept = self.objects.remove(key)?;
        let owner = kept.owner.clone();
        if let Some(owned) = self.owned.get_mut(&owner) {
            owned.retain(|other| other.name != kept.name);
            if owned.is_empty() {
                self.owned.remove(&owner);
            }
        }
        Some(owner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use futures_util::FutureExt;
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::super::DEPLOYMENT_LABEL;
    use super::*;

    fn object(name: &str, version: &str, owner: &str) -> ConfigMap {
        ConfigMap {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some("ns".to_owned()),
                resource_version: Some(version.to_owned()),
                labels: Some(BTreeMap::from([(DEPLOYMENT_LABEL.to_owned(), owner.to_owned())])),
                ..ObjectMeta::default()
            },
            ..ConfigMap::default()
        }
    }

    /// What `events` leave behind, and who was told to look.
    fn after(events: Vec<Event<ConfigMap>>) -> (Owned<()>, Vec<String>) {
        let (owned, changes) =
            Owned::fill(stream::iter(events.into_iter().map(Ok)), |map| (map.metadata, ()));
        let changes = changes.collect::<Vec<_>>().now_or_never().unwrap();
        let told = changes.into_iter().map(|owner| owner.unwrap().1.to_string());
        (owned, told.collect())
    }

    fn list(objects: &[(&str, &str, &str)]) -> Vec<Event<ConfigMap>> {
        let applies = objects
            .iter()
            .map(|(name, version, owner)| Event::InitApply(object(name, version, owner)));
        std::iter::once(Event::Init)
            .chain(applies)
            .chain([Event::InitDone])
            .collect()
    }

    fn names(owned: &Owned<()>, owner: &str) -> Vec<String> {
        let all = owned.of("ns", owner);
        all.iter().map(|kept| kept.name.to_string()).collect()
    }

    #[test]
    fn a_list_is_seen_and_told_at_its_end() {
        let mut events = list(&[("b", "1", "d"), ("a", "1", "d"), ("c", "1", "e")]);
        let end = events.pop().unwrap();
        let (owned, told) = after(events.clone());
        assert!(told.is_empty() && owned.get("ns", "a").is_none());
        assert!(
            owned.filled().now_or_never().unwrap().is_err(),
            "the watch ended before"
        );
        events.push(end);
        let (owned, told) = after(events);
        assert_eq!(told, ["d", "d", "e"]);
        assert_eq!(names(&owned, "d"), ["a", "b"]);
        owned.filled().now_or_never().unwrap().unwrap();
    }

    #[test]
    fn a_second_list_tells_what_is_new_changed_and_gone() {
        let mut events = list(&[("a", "1", "da"), ("b", "1", "db"), ("c", "1", "dc")]);
        events.push(Event::Apply(object("d", "1", "dd")));
        events.push(Event::Delete(object("c", "2", "dc")));
        events.extend(list(&[("a", "1", "da"), ("b", "2", "db"), ("e", "1", "de")]));
        let (owned, told) = after(events);
        assert_eq!(told, ["da", "db", "dc", "dd", "dc", "db", "de", "dd"]);
        assert!(owned.get("ns", "d").is_none() && names(&owned, "dd").is_empty());
    }

    #[test]
    fn the_same_again_is_not_told() {
        let apply = |version| Event::Apply(object("a", version, "d"));
        let (_, told) = after(vec![apply("1"), apply("1"), apply("2")]);
        assert_eq!(told, ["d", "d"]);
    }

    #[test]
    fn an_object_that_changes_hands_is_told_to_both() {
        let (owned, told) = after(vec![
            Event::Apply(object("a", "1", "old")),
            Event::Apply(object("a", "2", "new")),
        ]);
        assert_eq!(told, ["old", "old", "new"]);
        assert!(names(&owned, "old").is_empty());
        assert_eq!(names(&owned, "new"), ["a"]);
    }
}
