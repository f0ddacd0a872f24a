//! `InferenceObjective` and `InferenceModelRewrite`: watched in the first API group that serves them.
//!
//! Which groups serve the kinds is asked at start and every minute, so that CRDs may come later. What
//! belongs to another pool is left out; an object that cannot be read stops no other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::watcher;
use kube::{Client, ResourceExt};
use llmd_crds::{
    InferenceModelRewrite, InferenceModelRewriteSpec, InferenceObjective, InferenceObjectiveSpec, PoolRef,
    TRAFFIC_GROUPS, TRAFFIC_VERSION,
};
use llmd_epp_core::traffic::{Rewrite, RewriteRule, RewriteTarget, TrafficRules};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::flags::{Membership, PoolOptions};
use crate::kubernetes::cause::{Cause, READ, Subject, explain_client};
use crate::kubernetes::watch::{Update, Updates, Watch};
use crate::kubernetes::watch_metrics::WatchMetrics;

/// How often the API server is asked which kinds it serves.
pub const ASK_EVERY: Duration = Duration::from_secs(60);
/// Longest wait for that answer.
const ANSWER: Duration = Duration::from_secs(10);

/// An object and what it means for one pool; `None` when it belongs to another or cannot be read.
#[derive(Clone, Debug)]
pub struct Meaning<T> {
    name: Arc<str>,
    pool: Option<(PoolRef, T)>,
}

/// Objective name and priority.
pub fn objective(object: &DynamicObject) -> Meaning<i32> {
    meaning(object, |spec: InferenceObjectiveSpec, _| {
        (spec.pool_ref, spec.priority.unwrap_or_default())
    })
}

/// The rules of a rewrite.
pub fn rewrite(object: &DynamicObject) -> Meaning<Rewrite> {
    let created = object.creation_timestamp().map_or(0, |time| time.0.as_second());
    meaning(object, |spec: InferenceModelRewriteSpec, name| {
        let rules = spec.rules.into_iter().map(|rule| RewriteRule {
            // One match without a model matches everything, as no match at all does.
            models: if rule.matches.iter().any(|found| found.model.is_none()) {
                Vec::new()
            } else {
                let models = rule.matches.into_iter().filter_map(|found| found.model);
                models.map(|model| model.value.into()).collect()
            },
            targets: rule
                .targets
                .into_iter()
                .map(|target| RewriteTarget {
                    model: target.model_rewrite.into(),
                    weight: target.weight.map(i32::unsigned_abs),
                })
                .collect(),
        });
        let rewrite = Rewrite {
            created,
            name: Arc::clone(name),
            rules: rules.collect(),
        };
        (spec.pool_ref, rewrite)
    })
}

fn meaning<S: DeserializeOwned, T>(
    object: &DynamicObject,
    read: impl FnOnce(S, &Arc<str>) -> (PoolRef, T),
) -> Meaning<T> {
    let name: Arc<str> = object.name_any().into();
    let spec = object.data.get("spec").cloned().unwrap_or_default();
    let pool = match serde_json::from_value(spec) {
        Ok(spec) => Some(read(spec, &name)),
        Err(error) => {
            tracing::warn!(object = &*name, %error, "an objective or model rewrite cannot be read and is left out");
            None
        }
    };
    Meaning { name, pool }
}

/// The running watches; dropping it ends them.
pub struct Traffic {
    first: watch::Receiver<bool>,
    _task: AbortOnDropHandle<()>,
}

impl Traffic {
    /// Starts asking, every `ask_every`, and watching.
    pub fn start(
        client: Client,
        pool: &PoolOptions,
        apply: Box<dyn Fn(TrafficRules) + Send + Sync>,
        metrics: WatchMetrics,
        ask_every: Duration,
    ) -> Self {
        let (sender, first) = watch::channel(false);
        let follower = Follower {
            client,
            namespace: pool.namespace.clone(),
            mine: Mine::of(pool),
            metrics,
            apply,
            ask_every,
            objectives: Kind::new(InferenceObjective::KIND, InferenceObjective::PLURAL, objective),
            rewrites: Kind::new(
                InferenceModelRewrite::KIND,
                InferenceModelRewrite::PLURAL,
                rewrite,
            ),
            problem: None,
            first: sender,
        };
        Self {
            first,
            _task: AbortOnDropHandle::new(tokio::spawn(follower.run())),
        }
    }

    /// Waits until every kind was read once, or is known not to be readable.
    pub async fn first(&self) {
        // An error means that the follower is gone: nothing more will come.
        let _ = self.first.clone().wait_for(|known| *known).await;
    }
}

/// Which pool references are meant.
struct Mine {
    name: String,
    /// `None` takes every group: a selector has no pool object whose group could be compared.
    group: Option<&'static str>,
}

impl Mine {
    fn of(pool: &PoolOptions) -> Self {
        Self {
            name: pool.name.clone(),
            group: match &pool.membership {
                Some(Membership::InferencePool { group, .. }) => Some(group),
                _ => None,
            },
        }
    }

    fn is(&self, reference: &PoolRef) -> bool {
        reference.name == self.name && self.group.is_none_or(|group| group == reference.group)
    }
}

/// One kind: the group it is watched in and what its objects say.
struct Kind<T> {
    name: &'static str,
    plural: &'static str,
    read: fn(&DynamicObject) -> Meaning<T>,
    watched: Option<(&'static str, Updates<Meaning<T>>)>,
    known: BTreeMap<Arc<str>, T>,
    /// Read, failed to be read, or not served.
    answered: bool,
    absence_told: bool,
}

impl<T: Clone + Send + 'static> Kind<T> {
    fn new(name: &'static str, plural: &'static str, read: fn(&DynamicObject) -> Meaning<T>) -> Self {
        Self {
            name,
            plural,
            read,
            watched: None,
            known: BTreeMap::new(),
            answered: false,
            absence_told: false,
        }
    }

    /// Takes over which group serves the kind; whether the rules changed by that.
    fn served_by(
        &mut self,
        group: Option<&'static str>,
        start: impl FnOnce(&'static str) -> Watch<DynamicObject>,
    ) -> bool {
        if self.watched.as_ref().map(|(watched, _)| *watched) == group {
            if group.is_none() {
                self.answered = true;
                if !std::mem::replace(&mut self.absence_told, true) {
                    tracing::info!(
                        "{} is not served by this cluster; its features are off",
                        self.name
                    );
                }
            }
            return false;
        }
        let read = self.read;
        self.watched = group.map(|group| {
            tracing::info!("{} is read from {group}/{TRAFFIC_VERSION}", self.name);
            (group, start(group).start(move |object| read(&object)))
        });
        if group.is_none() {
            tracing::warn!("{} is not served any more; its objects are forgotten", self.name);
            self.known.clear();
        }
        group.is_none()
    }

    /// Takes over an update; whether the rules may have changed.
    fn apply(&mut self, update: Update<Meaning<T>>, mine: &Mine) -> bool {
        self.answered = true;
        let wanted = |meaning: Meaning<T>| {
            let (reference, value) = meaning.pool?;
            mine.is(&reference).then_some((meaning.name, value))
        };
        match update {
            Update::All(objects) => self.known = objects.into_iter().filter_map(wanted).collect(),
            Update::Set(object) => {
                self.known.remove(&object.name);
                self.known.extend(wanted(object));
            }
            Update::Gone(object) => {
                self.known.remove(&object.name);
            }
            Update::Stale(_) => return false,
        }
        true
    }

    async fn next(&mut self) -> Option<Update<Meaning<T>>> {
        match &mut self.watched {
            Some((_, updates)) => updates.receiver.recv().await,
            None => std::future::pending().await,
        }
    }
}

struct Follower {
    client: Client,
    namespace: String,
    mine: Mine,
    metrics: WatchMetrics,
    apply: Box<dyn Fn(TrafficRules) + Send + Sync>,
    ask_every: Duration,
    objectives: Kind<i32>,
    rewrites: Kind<Rewrite>,
    /// Why discovery failed, as it was logged last.
    problem: Option<String>,
    first: watch::Sender<bool>,
}

impl Follower {
    async fn run(mut self) {
        let mut asking = tokio::time::interval(self.ask_every);
        asking.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let changed = tokio::select! {
                _ = asking.tick() => self.discover().await,
                Some(update) = self.objectives.next() => self.objectives.apply(update, &self.mine),
                Some(update) = self.rewrites.next() => self.rewrites.apply(update, &self.mine),
            };
            if changed {
                let priorities = self
                    .objectives
                    .known
                    .iter()
                    .map(|(name, priority)| (Arc::clone(name), *priority));
                let rules = TrafficRules::new(priorities, self.rewrites.known.values().cloned().collect());
                let (objectives, models) = rules.counts();
                tracing::info!(objectives, models, "objectives and rewritten model names");
                (self.apply)(rules);
            }
            if self.objectives.answered && self.rewrites.answered {
                self.first.send_replace(true);
            }
        }
    }

    /// Asks which group serves each kind; whether the rules changed by that.
    async fn discover(&mut self) -> bool {
        let mut served = BTreeMap::new();
        for group in TRAFFIC_GROUPS {
            match self.plurals(group).await {
                Ok(plurals) => {
                    for plural in plurals {
                        served.entry(plural).or_insert(group);
                    }
                }
                Err(problem) => {
                    // Nobody knows: what is watched stays, the next minute asks again.
                    if self.problem.as_ref() != Some(&problem) {
                        tracing::warn!("objectives and model rewrites: {problem}");
                        self.problem = Some(problem);
                    }
                    self.objectives.answered = true;
                    self.rewrites.answered = true;
                    return false;
                }
            }
        }
        self.problem = None;
        let Self {
            client,
            namespace,
            metrics,
            objectives,
            rewrites,
            ..
        } = self;
        let (client, namespace, metrics) = (&*client, &**namespace, &*metrics);
        let start = |kind: &'static str, plural: &'static str| {
            move |group: &'static str| {
                watch(client.clone(), namespace, metrics.clone(), (kind, plural), group)
            }
        };
        let group = served.get(objectives.plural).copied();
        let changed = objectives.served_by(group, start(objectives.name, objectives.plural));
        let group = served.get(rewrites.plural).copied();
        rewrites.served_by(group, start(rewrites.name, rewrites.plural)) || changed
    }

    /// Plurals that a group serves in our version; none when it does not exist.
    async fn plurals(&self, group: &str) -> Result<Vec<String>, String> {
        let asked = format!("{group}/{TRAFFIC_VERSION}");
        let subject = Subject {
            resource: asked.clone(),
            namespace: self.namespace.clone(),
            verbs: READ,
            when_missing: "",
        };
        match tokio::time::timeout(ANSWER, self.client.list_api_group_resources(&asked)).await {
            Ok(Ok(list)) => Ok(list.resources.into_iter().map(|resource| resource.name).collect()),
            Ok(Err(error)) => match explain_client(&subject, &error) {
                (Cause::NotServed, _) => Ok(Vec::new()),
                (_, problem) => Err(problem),
            },
            Err(_) => Err(format!("the API server did not answer about {asked}")),
        }
    }
}

fn watch(
    client: Client,
    namespace: &str,
    metrics: WatchMetrics,
    (kind, plural): (&str, &str),
    group: &str,
) -> Watch<DynamicObject> {
    let resource =
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, TRAFFIC_VERSION, kind), plural);
    Watch {
        api: Api::namespaced_with(client, namespace, &resource),
        config: watcher::Config::default(),
        subject: Subject {
            resource: format!("{plural}.{group}/{TRAFFIC_VERSION}"),
            namespace: namespace.to_owned(),
            verbs: READ,
            when_missing: "its CRD was removed; it is looked for again every minute",
        },
        metrics,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object(name: &str, created: &str, spec: &Value) -> DynamicObject {
        let object = json!({
            "metadata": {"name": name, "creationTimestamp": created},
            "spec": spec
        });
        serde_json::from_value(object).expect("an object")
    }

    fn pool(name: &str, group: &str) -> Value {
        json!({"name": name, "group": group, "kind": "InferencePool"})
    }

    const GROUP: &str = "inference.networking.k8s.io";

    #[test]
    fn objects_of_other_pools_and_unreadable_ones_are_left_out() {
        let mine = Mine {
            name: "p".to_owned(),
            group: Some(GROUP),
        };
        let mut kind = Kind::new("InferenceObjective", "inferenceobjectives", objective);
        let time = "2026-01-01T00:00:00Z";
        let of = |name: &str, reference: Value| {
            objective(&object(name, time, &json!({"priority": 3, "poolRef": reference})))
        };
        let listed = vec![
            of("mine", pool("p", GROUP)),
            of("short", json!({"name": "p"})),
            of("other-name", pool("q", GROUP)),
            of("other-group", pool("p", "inference.networking.x-k8s.io")),
            objective(&object("unset", time, &json!({"poolRef": pool("p", GROUP)}))),
            objective(&object(
                "broken",
                time,
                &json!({"priority": "high", "poolRef": pool("p", GROUP)}),
            )),
        ];
        assert!(kind.apply(Update::All(listed), &mine));
        let known: Vec<(&str, i32)> = kind
            .known
            .iter()
            .map(|(name, priority)| (&**name, *priority))
            .collect();
        assert_eq!(known, [("mine", 3), ("short", 3), ("unset", 0)]);

        assert!(
            kind.apply(Update::Set(of("mine", pool("q", GROUP))), &mine),
            "it moved away"
        );
        assert!(kind.apply(Update::Gone(of("short", pool("p", GROUP))), &mine));
        assert_eq!(kind.known.len(), 1);
    }

    #[test]
    fn a_rewrite_becomes_rules() {
        let spec = json!({
            "poolRef": pool("p", GROUP),
            "rules": [
                {
                    "matches": [{"model": {"type": "Exact", "value": "chat"}}],
                    "targets": [{"modelRewrite": "a", "weight": 9}, {"modelRewrite": "b", "weight": 1}]
                },
                {"targets": [{"modelRewrite": "c"}]}
            ]
        });
        let meaning = rewrite(&object("r", "2026-01-01T00:00:00Z", &spec));
        let (_, read) = meaning.pool.expect("readable");
        assert_eq!((read.created, &*read.name), (1_767_225_600, "r"));
        assert_eq!(read.rules[0].models, ["chat".into()]);
        assert_eq!(read.rules[0].targets[0].weight, Some(9));
        assert!(read.rules[1].models.is_empty());
        let rules = TrafficRules::new([], vec![read]);
        assert_eq!(&*rules.rewrite("anything").expect("a rule").target, "c");
    }
}
