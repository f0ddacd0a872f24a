//! When to look: not before the store shows what the watch has told.
//!
//! A list arrives object by object, and the store takes it over as a whole at its end. Who was told of an object
//! before would not find it, and nobody would tell again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use futures_util::{Stream, StreamExt, stream};
use kube::ResourceExt;
use kube::runtime::watcher::{self, Event};

/// What has changed in the store.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen<K> {
    /// An object is there, as given.
    There(K),
    /// An object is gone; `None` where a list did not have it any more, which tells its name only.
    Gone(Option<K>, (String, String)),
}

/// Namespace and name to a mark of each object that is there.
#[derive(Debug)]
struct Known<K> {
    marks: BTreeMap<(String, String), String>,
    listed: Vec<K>,
}

/// Changes of `events` in the order in which the store shows them. Objects with the `mark` that they had before are
/// left out.
pub(super) fn visible<K: ResourceExt + Debug + Send + 'static>(
    events: impl Stream<Item = Result<Event<K>, watcher::Error>> + Send + 'static,
    mark: fn(&K) -> String,
) -> impl Stream<Item = Result<Seen<K>, watcher::Error>> + Send + 'static {
    let mut known = Known {
        marks: BTreeMap::new(),
        listed: Vec::new(),
    };
    events.flat_map(move |event| {
        stream::iter(match event {
            Ok(event) => known.take(event, mark).into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        })
    })
}

impl<K: ResourceExt> Known<K> {
    fn take(&mut self, event: Event<K>, mark: fn(&K) -> String) -> Vec<Seen<K>> {
        match event {
            Event::Init => {
                self.listed.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                self.listed.push(object);
                Vec::new()
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listed);
                let names: BTreeSet<_> = listed.iter().map(key).collect();
                let gone: Vec<_> = self
                    .marks
                    .keys()
                    .filter(|key| !names.contains(*key))
                    .cloned()
                    .collect();
                let mut seen: Vec<_> = listed
                    .into_iter()
                    .filter_map(|object| self.there(object, mark))
                    .collect();
                for key in gone {
                    self.marks.remove(&key);
                    seen.push(Seen::Gone(None, key));
                }
                seen
            }
            Event::Apply(object) => self.there(object, mark).into_iter().collect(),
            Event::Delete(object) => {
                let key = key(&object);
                self.marks.remove(&key);
                vec![Seen::Gone(Some(object), key)]
            }
        }
    }

    fn there(&mut self, object: K, mark: fn(&K) -> String) -> Option<Seen<K>> {
        let mark = mark(&object);
        let before = self.marks.insert(key(&object), mark.clone());
        (before.as_ref() != Some(&mark)).then_some(Seen::There(object))
    }
}

fn key<K: ResourceExt>(object: &K) -> (String, String) {
    (object.namespace().unwrap_or_default(), object.name_any())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::ObjectMeta;

    use super::*;

    fn object(name: &str, version: &str) -> ConfigMap {
        ConfigMap {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some("ns".to_owned()),
                resource_version: Some(version.to_owned()),
                ..ObjectMeta::default()
            },
            ..ConfigMap::default()
        }
    }

    fn told(events: Vec<Event<ConfigMap>>) -> Vec<String> {
        let mark = |object: &ConfigMap| object.metadata.resource_version.clone().unwrap_or_default();
        let seen = visible(stream::iter(events.into_iter().map(Ok)), mark);
        let seen = futures_util::FutureExt::now_or_never(seen.collect::<Vec<_>>()).unwrap();
        seen.into_iter()
            .map(|seen| match seen.unwrap() {
                Seen::There(object) => object.name_any(),
                Seen::Gone(_, (_, name)) => format!("-{name}"),
            })
            .collect()
    }

    #[test]
    fn a_list_is_told_at_its_end() {
        let events = vec![
            Event::Init,
            Event::InitApply(object("a", "1")),
            Event::InitApply(object("b", "1")),
        ];
        assert!(told(events.clone()).is_empty());
        let whole = events.into_iter().chain([Event::InitDone]).collect();
        assert_eq!(told(whole), ["a", "b"]);
    }

    #[test]
    fn a_second_list_tells_what_is_new_changed_and_gone() {
        let list = |objects: &[(&str, &str)]| {
            let applies = objects
                .iter()
                .map(|(name, version)| Event::InitApply(object(name, version)));
            std::iter::once(Event::Init)
                .chain(applies)
                .chain([Event::InitDone])
                .collect::<Vec<_>>()
        };
        let mut events = list(&[("a", "1"), ("b", "1"), ("c", "1")]);
        events.push(Event::Apply(object("d", "1")));
        events.push(Event::Delete(object("c", "2")));
        events.extend(list(&[("a", "1"), ("b", "2"), ("e", "1")]));
        assert_eq!(told(events), ["a", "b", "c", "d", "-c", "b", "e", "-d"]);
    }

    #[test]
    fn the_same_again_is_not_told() {
        let events = vec![
            Event::Apply(object("a", "1")),
            Event::Apply(object("a", "1")),
            Event::Apply(object("a", "2")),
        ];
        assert_eq!(told(events), ["a", "a"]);
    }
}
