//! Label values with their caps, and the cache of handles behind them.
//!
//! Clients choose model names and fairness ids, so their number is bounded: the first 1000 distinct
//! values of each are kept, later ones become `other`, as upstream does. The number of label sets is
//! bounded as well, because 1000 × 1000 of them would not fit into memory.

use std::collections::HashSet;
use std::hash::BuildHasher;
use std::sync::{Arc, PoisonError, RwLock};

use rustc_hash::{FxBuildHasher, FxHashMap};

use super::RequestRecorder;

const MAX_DISTINCT: usize = 1000;
const MAX_SETS: usize = 10_000;
const OTHER: &str = "other";

/// Labels of one request, before the caps.
#[derive(Clone, Copy, Debug)]
pub struct RequestLabels<'a> {
    /// Model the client named.
    pub model: &'a str,
    /// Model the engine is asked for.
    pub target: &'a str,
    /// Flow identity.
    pub fairness_id: &'a str,
    /// Objective priority.
    pub priority: i32,
}

/// Capped labels of one series set.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct LabelSet([Box<str>; 4]);

impl LabelSet {
    /// In the order of the label names `L`.
    pub(super) fn values(&self) -> [&str; 4] {
        let [model, target, fairness, priority] = &self.0;
        [model, target, fairness, priority]
    }
}

#[derive(Debug, Default)]
struct Seen {
    models: HashSet<Box<str>>,
    fairness_ids: HashSet<Box<str>>,
    /// By hash of all labels, so that a lookup with borrowed strings allocates nothing.
    recorders: FxHashMap<u64, Vec<(LabelSet, i32, Arc<RequestRecorder>)>>,
    sets: usize,
}

/// Handles per label set.
#[derive(Debug, Default)]
pub(super) struct LabelCache(RwLock<Seen>);

impl LabelCache {
    /// Lets these model names through whatever the cap says.
    pub(super) fn keep_models<'a>(&self, names: impl Iterator<Item = &'a str>) {
        let mut seen = self.0.write().unwrap_or_else(PoisonError::into_inner);
        seen.models.extend(names.map(Box::from));
    }

    pub(super) fn get(
        &self,
        labels: &RequestLabels<'_>,
        make: impl FnOnce(LabelSet) -> RequestRecorder,
    ) -> Arc<RequestRecorder> {
        let seen = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(recorder) = seen.find(labels) {
            return recorder;
        }
        drop(seen);
        let mut seen = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let Seen {
            models, fairness_ids, ..
        } = &mut *seen;
        let model = capped(models, labels.model);
        let target = capped(models, labels.target);
        let fairness_id = capped(fairness_ids, labels.fairness_id);
        let mut capped = RequestLabels {
            model,
            target,
            fairness_id,
            priority: labels.priority,
        };
        if let Some(recorder) = seen.find(&capped) {
            return recorder;
        }
        if seen.sets >= MAX_SETS {
            capped = RequestLabels {
                model: OTHER,
                target: OTHER,
                fairness_id: OTHER,
                priority: 0,
            };
            if let Some(recorder) = seen.find(&capped) {
                return recorder;
            }
        }
        let set = LabelSet([
            capped.model.into(),
            capped.target.into(),
            capped.fairness_id.into(),
            capped.priority.to_string().into(),
        ]);
        let recorder = Arc::new(make(set.clone()));
        seen.sets += 1;
        let bucket = seen.recorders.entry(hash(&capped)).or_default();
        bucket.push((set, capped.priority, Arc::clone(&recorder)));
        recorder
    }
}

impl Seen {
    fn find(&self, labels: &RequestLabels<'_>) -> Option<Arc<RequestRecorder>> {
        let RequestLabels {
            model,
            target,
            fairness_id,
            priority,
        } = *labels;
        let bucket = self.recorders.get(&hash(labels))?;
        let (_, _, recorder) = bucket.iter().find(|(set, of, _)| {
            let [known_model, known_target, known_fairness, _] = set.values();
            *of == priority && known_model == model && known_target == target && known_fairness == fairness_id
        })?;
        Some(Arc::clone(recorder))
    }
}

fn hash(labels: &RequestLabels<'_>) -> u64 {
    let RequestLabels {
        model,
        target,
        fairness_id,
        priority,
    } = *labels;
    FxBuildHasher.hash_one((model, target, fairness_id, priority))
}

fn capped<'a>(seen: &mut HashSet<Box<str>>, value: &'a str) -> &'a str {
    if value.is_empty() || seen.contains(value) {
        return value;
    }
    if seen.len() >= MAX_DISTINCT {
        return OTHER;
    }
    seen.insert(value.into());
    value
}
