//! One scheduling profile: filters in order, weighted scores, one picker.

use std::sync::Arc;

use llmd_epp_api::plugin::{Filter, Picker, ProfileRun, Scorer};
use llmd_epp_api::{Cycle, Random, TypedName};

use super::metrics::{SchedulerMetrics, Stopwatch, Timer};
use crate::spans;

/// A profile's plugins in configuration order.
#[derive(Default)]
pub(crate) struct ProfileParts {
    pub(crate) filters: Vec<(TypedName, Arc<dyn Filter>)>,
    pub(crate) scorers: Vec<(TypedName, Arc<dyn Scorer>, f64)>,
    pub(crate) picker: Option<(TypedName, Arc<dyn Picker>)>,
}

#[derive(Default)]
struct Timers {
    filters: Vec<Timer>,
    scorers: Vec<Timer>,
    picker: Option<Timer>,
}

/// A profile in running form.
pub(crate) struct Profile {
    name: Arc<str>,
    parts: ProfileParts,
    timers: Timers,
}

/// Buffers that profiles of one cycle share.
#[derive(Default)]
pub(crate) struct ProfileScratch {
    candidates: Vec<u32>,
    totals: Vec<f64>,
    scores: Vec<f64>,
}

impl Profile {
    pub(crate) fn new(name: Arc<str>, parts: ProfileParts) -> Self {
        Self {
            name,
            parts,
            timers: Timers::default(),
        }
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(crate) fn time_with(&mut self, metrics: &SchedulerMetrics) {
        let ProfileParts {
            filters,
            scorers,
            picker,
        } = &self.parts;
        self.timers = Timers {
            filters: filters
                .iter()
                .map(|(name, _)| metrics.timer("Filter", name))
                .collect(),
            scorers: scorers
                .iter()
                .map(|(name, _, _)| metrics.timer("Scorer", name))
                .collect(),
            picker: picker.as_ref().map(|(name, _)| metrics.timer("Picker", name)),
        };
    }

    /// Runs the profile; the run's `picked` stays empty when filters leave nothing.
    pub(crate) fn run(
        &self,
        cycle: &Cycle<'_>,
        candidates: &[u32],
        random: &Random,
        retain_scores: bool,
        scratch: &mut ProfileScratch,
        watch: &mut Stopwatch<'_>,
    ) -> ProfileRun {
        let ProfileScratch {
            candidates: left,
            totals,
            scores,
        } = scratch;
        let wanted = watch.is_traced();
        let _profile = spans::profile(wanted, &self.name).entered();
        let mut run = ProfileRun::default();
        left.clear();
        left.extend_from_slice(candidates);
        watch.lap();
        let filtering = spans::filters(wanted, cycle, left.len()).entered();
        for ((_, filter), timer) in self.parts.filters.iter().zip(&self.timers.filters) {
            filter.filter(cycle, left, random);
            timer.observe(watch.lap());
            if left.is_empty() {
                spans::filtered(&filtering, 0);
                return run;
            }
        }
        spans::filtered(&filtering, left.len());
        drop(filtering);
        let scoring = spans::scoring(wanted, self.parts.scorers.len(), left.len()).entered();
        totals.clear();
        totals.resize(left.len(), 0.0);
        for ((name, scorer, weight), timer) in self.parts.scorers.iter().zip(&self.timers.scorers) {
            let span = spans::scorer(wanted, name, *weight, left.len()).entered();
            scores.clear();
            scores.resize(left.len(), 0.0);
            scorer.score(cycle, left, scores);
            for (total, score) in totals.iter_mut().zip(scores.iter()) {
                *total += within_unit(*score) * weight;
            }
            spans::scored(&span, scores);
            timer.observe(watch.lap());
        }
        drop(scoring);
        if let Some((_, picker)) = &self.parts.picker {
            let _picking = spans::picker(wanted, cycle, left, totals).entered();
            picker.pick(cycle, left, totals, random, &mut run.picked);
            if let Some(timer) = &self.timers.picker {
                timer.observe(watch.lap());
            }
        }
        if retain_scores {
            run.scored = left.iter().copied().zip(totals.iter().copied()).collect();
        }
        run
    }
}

/// Clamps to 0..=1; what is not a number counts as 0.
fn within_unit(score: f64) -> f64 {
    if score.is_nan() {
        0.0
    } else {
        score.clamp(0.0, 1.0)
    }
}
