//! What objects of a cluster say about requests: priorities by objective name, and model rewrites.
//!
//! Pure data, replaced as a whole when an object changes. Rules follow llm-d-router: a rule whose match
//! names the model comes before one without matches; among equals the oldest object, then the order in
//! its list.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustc_hash::FxHashMap;

/// One model that a rewrite rule sends requests to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RewriteTarget {
    /// Name the engine is asked for.
    pub model: Arc<str>,
    /// Share of the requests, 1 to 1,000,000; `None` in a list where another target has one gets none.
    pub weight: Option<u32>,
}

/// One rule of an `InferenceModelRewrite`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RewriteRule {
    /// Names it applies to; empty applies to every name.
    pub models: Vec<Arc<str>>,
    /// Where requests go.
    pub targets: Vec<RewriteTarget>,
}

/// An `InferenceModelRewrite`, as far as precedence needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// Seconds since 1970; the oldest wins.
    pub created: i64,
    /// Breaks ties of `created`.
    pub name: Arc<str>,
    /// In the order of the object.
    pub rules: Vec<RewriteRule>,
}

/// Everything at one moment.
#[derive(Debug, Default)]
pub struct TrafficRules {
    priorities: FxHashMap<Arc<str>, i32>,
    exact: FxHashMap<Arc<str>, Arc<Choice>>,
    generic: Option<Arc<Choice>>,
    /// Weighted draws so far; hashed it is the next draw.
    draws: AtomicU64,
}

/// What a rewrite says about one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewritten {
    /// The object whose rule won.
    pub by: Arc<str>,
    /// The name to ask the engine for.
    pub target: Arc<str>,
}

/// The targets of the rule that won for a name.
#[derive(Debug)]
struct Choice {
    /// The object that has the rule.
    by: Arc<str>,
    targets: Vec<RewriteTarget>,
    /// Sum of the weights; 0 chooses uniformly.
    total: u64,
}

impl TrafficRules {
    /// Puts priorities by objective name and rewrites together. Rules without targets say nothing.
    pub fn new(priorities: impl IntoIterator<Item = (Arc<str>, i32)>, mut rewrites: Vec<Rewrite>) -> Self {
        rewrites.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
        let mut rules = Self {
            priorities: priorities.into_iter().collect(),
            ..Self::default()
        };
        let named = rewrites.into_iter().flat_map(|Rewrite { name, rules, .. }| {
            rules.into_iter().map(move |rule| (Arc::clone(&name), rule))
        });
        for (by, rule) in named {
            if rule.targets.is_empty() {
                continue;
            }
            let total = rule
                .targets
                .iter()
                .filter_map(|target| target.weight)
                .map(u64::from)
                .sum();
            let choice = Arc::new(Choice {
                by,
                targets: rule.targets,
                total,
            });
            if rule.models.is_empty() {
                rules.generic.get_or_insert(choice);
                continue;
            }
            for model in rule.models {
                rules.exact.entry(model).or_insert_with(|| Arc::clone(&choice));
            }
        }
        rules
    }

    /// Priority of the objective a request names; 0 when there is none of that name.
    pub fn priority(&self, objective: Option<&str>) -> i32 {
        objective
            .and_then(|name| self.priorities.get(name))
            .copied()
            .unwrap_or_default()
    }

    /// The name to ask the engine for instead of `model`; `None` when no rule speaks about it.
    pub fn rewrite(&self, model: &str) -> Option<Rewritten> {
        let choice = self.exact.get(model).or(self.generic.as_ref())?;
        let target = match &choice.targets[..] {
            [only] => only,
            _ => choice.at(self.draw()),
        };
        Some(Rewritten {
            by: Arc::clone(&choice.by),
            target: Arc::clone(&target.model),
        })
    }

    /// Every name that rules mention; metrics keep them whatever clients send.
    pub fn model_names(&self) -> impl Iterator<Item = &str> {
        let choices = self.exact.values().chain(&self.generic);
        let targets = choices.flat_map(|choice| choice.targets.iter().map(|target| &*target.model));
        self.exact.keys().map(|name| &**name).chain(targets)
    }

    /// Objectives and rewritten names, for logs.
    pub fn counts(&self) -> (usize, usize) {
        (
            self.priorities.len(),
            self.exact.len() + usize::from(self.generic.is_some()),
        )
    }

    /// `SplitMix64` of a counter: uniform, without a lock, and the same sequence in every test.
    fn draw(&self) -> u64 {
        let count = self.draws.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let mut mixed = count.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl Choice {
    /// First target whose cumulative weight is above the draw; without weights every one alike.
    fn at(&self, draw: u64) -> &RewriteTarget {
        if self.total == 0 {
            return &self.targets[(draw % self.targets.len() as u64) as usize];
        }
        let mut rest = draw % self.total;
        for target in &self.targets {
            let weight = u64::from(target.weight.unwrap_or_default());
            if rest < weight {
                return target;
            }
            rest -= weight;
        }
        // Not reached: `rest` is below the sum of the weights.
        &self.targets[0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(model: &str, weight: Option<u32>) -> RewriteTarget {
        RewriteTarget {
            model: model.into(),
            weight,
        }
    }

    fn rule(models: &[&str], targets: Vec<RewriteTarget>) -> RewriteRule {
        RewriteRule {
            models: models.iter().map(|model| (*model).into()).collect(),
            targets,
        }
    }

    fn asked_for(rules: &TrafficRules, model: &str) -> Option<Arc<str>> {
        rules.rewrite(model).map(|rewritten| rewritten.target)
    }

    fn rewrite(created: i64, name: &str, rules: Vec<RewriteRule>) -> Rewrite {
        Rewrite {
            created,
            name: name.into(),
            rules,
        }
    }

    fn share(rules: &TrafficRules, model: &str, target: &str) -> f64 {
        let hits = (0..10_000)
            .filter(|_| asked_for(rules, model).as_deref() == Some(target))
            .count();
        hits as f64 / 10_000.0
    }

    #[test]
    fn exact_before_generic_then_the_oldest_then_the_order() {
        let rules = TrafficRules::new(
            [],
            vec![
                rewrite(20, "a", vec![rule(&["m"], vec![target("younger", None)])]),
                rewrite(
                    10,
                    "b",
                    vec![
                        rule(&[], vec![target("any", None)]),
                        rule(&["m", "n"], vec![target("first", None)]),
                        rule(&["m"], vec![target("second", None)]),
                    ],
                ),
                rewrite(10, "a", vec![rule(&["n"], vec![target("by name", None)])]),
                rewrite(1, "z", vec![rule(&["m"], vec![])]),
            ],
        );
        assert_eq!(asked_for(&rules, "m").as_deref(), Some("first"));
        assert_eq!(
            asked_for(&rules, "n").as_deref(),
            Some("by name"),
            "of one second, the smaller name"
        );
        assert_eq!(&*rules.rewrite("n").expect("a rule").by, "a");
        assert_eq!(asked_for(&rules, "x").as_deref(), Some("any"));
        assert_eq!(rules.counts(), (0, 3));
        assert_eq!(TrafficRules::default().rewrite("m"), None);
    }

    #[test]
    fn weights_share_the_requests_and_unweighted_targets_of_a_mixed_list_get_none() {
        let targets = vec![
            target("a", Some(900)),
            target("never", None),
            target("b", Some(100)),
        ];
        let rules = TrafficRules::new([], vec![rewrite(0, "w", vec![rule(&["m"], targets)])]);
        let (a, b) = (share(&rules, "m", "a"), share(&rules, "m", "b"));
        assert!((a - 0.9).abs() < 0.02 && (b - 0.1).abs() < 0.02, "{a} {b}");
        assert!((share(&rules, "m", "never")).abs() < f64::EPSILON);

        let targets = vec![target("a", None), target("b", None)];
        let rules = TrafficRules::new([], vec![rewrite(0, "u", vec![rule(&[], targets)])]);
        let a = share(&rules, "whatever", "a");
        assert!((a - 0.5).abs() < 0.02, "{a}");
    }

    #[test]
    fn an_unknown_objective_has_priority_zero() {
        let rules = TrafficRules::new([("premium".into(), 10), ("batch".into(), -1)], vec![]);
        assert_eq!(rules.priority(Some("premium")), 10);
        assert_eq!(rules.priority(Some("batch")), -1);
        assert_eq!((rules.priority(Some("x")), rules.priority(None)), (0, 0));
    }
}
