//! A store that finds what belongs to a resource without a look at all the others.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::ResourceExt;
use kube::runtime::reflector::{Lookup, ObjectRef, Store};

use super::owner_of;

/// Namespace and name of a resource, and the names of objects that were ever seen as its own.
type Names = HashMap<(String, String), BTreeSet<String>>;

/// Copies of one kind, by the resource they belong to.
pub(crate) struct Owned<K: Lookup + 'static>
where
    K::DynamicType: Hash + Eq + Clone,
{
    pub(super) store: Store<K>,
    kind: K::DynamicType,
    names: Index,
}

/// Shared between the watch, which fills it, and the readers.
#[derive(Clone, Default)]
pub(super) struct Index(Arc<Mutex<Names>>);

impl Index {
    /// An object was seen, alive or for the last time.
    pub(super) fn see<K: kube::Resource>(&self, object: &K) {
        if let Some(owner) = owner_of(object) {
            self.names().entry(owner).or_default().insert(object.name_any());
        }
    }

    /// Whose an object was when it was seen.
    pub(super) fn owner_of(&self, namespace: &str, name: &str) -> Option<(String, String)> {
        let all = self.names();
        let mut owners = all
            .iter()
            .filter(|((of, _), names)| of == namespace && names.contains(name));
        owners.next().map(|(owner, _)| owner.clone())
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K> Owned<K>
where
    K: Lookup + kube::Resource + Clone + 'static,
    <K as Lookup>::DynamicType: Hash + Eq + Clone,
{
    pub(super) fn new(store: Store<K>, kind: <K as Lookup>::DynamicType, names: Index) -> Self {
        Self { store, kind, names }
    }

    /// One object.
    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        let reference = ObjectRef::new_with(name, self.kind.clone()).within(namespace);
        self.store.get(&reference)
    }

    /// Those of the named resource, by name.
    pub(crate) fn of(&self, namespace: &str, name: &str) -> Vec<Arc<K>> {
        let owner = (namespace.to_owned(), name.to_owned());
        let mut all = self.names.names();
        let Some(names) = all.get_mut(&owner) else {
            return Vec::new();
        };
        let mut found = Vec::with_capacity(names.len());
        names.retain(|name| {
            let object = self.get(namespace, name);
            // It may be another's by now.
            let mine = object.filter(|object| owner_of(&**object).as_ref() == Some(&owner));
            let is_there = mine.is_some();
            found.extend(mine);
            is_there
        });
        if names.is_empty() {
            all.remove(&owner);
        }
        found
    }
}
