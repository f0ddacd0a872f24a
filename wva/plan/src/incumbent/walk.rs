//! Depth-first search over some models together: what is left of them costs at least their cheapest choices at the
//! bound's prices, less what these prices charge for the GPUs that are left.

use super::SAME;
use crate::problem::Problem;
use crate::search::Search;

/// The choice of each model, by its index.
type Choices = Vec<(usize, Vec<u32>)>;

pub(super) struct Walk<'a> {
    problem: &'a Problem,
    prices: &'a [f64],
    free: Vec<f64>,
    /// The models, those with much at stake first.
    order: Vec<usize>,
    /// At least what the models from each place on cost at the prices.
    rest: Vec<f64>,
    slack: Vec<f64>,
    /// What the prices charge for all of the slack.
    whole: f64,
    chosen: Vec<Vec<u32>>,
    /// The cheapest so far.
    cost: f64,
    best: Option<Vec<Vec<u32>>>,
    nodes: usize,
    is_whole: bool,
}

impl<'a> Walk<'a> {
    /// Looks for choices of `group` below `cost` that fit into `slack`, at so many nodes.
    pub(super) fn new(
        problem: &'a Problem,
        prices: &'a [f64],
        group: &[usize],
        slack: Vec<f64>,
        cost: f64,
        nodes: usize,
    ) -> Self {
        let least = |index: &usize| {
            let found = Search::new(&problem.needs[*index], prices, &slack).best();
            (*index, found.map_or(0.0, |found| found.bound))
        };
        let mut least: Vec<(usize, f64)> = group.iter().map(least).collect();
        least.sort_by(|a, b| b.1.total_cmp(&a.1));
        let mut rest = vec![0.0; least.len() + 1];
        for place in (0..least.len()).rev() {
            rest[place] = rest[place + 1] + least[place].1;
        }
        Self {
            problem,
            prices,
            free: vec![0.0; prices.len()],
            chosen: vec![Vec::new(); least.len()],
            order: least.into_iter().map(|(index, _)| index).collect(),
            rest,
            whole: prices
                .iter()
                .zip(&slack)
                .map(|(price, there)| price * there)
                .sum(),
            slack,
            cost,
            best: None,
            nodes,
            is_whole: true,
        }
    }

    /// Whether everything was looked at.
    pub(super) fn run(&mut self) -> bool {
        self.visit(0, 0.0, 0.0);
        self.is_whole && self.nodes > 0
    }

    /// Cheaper choices, by model, and their cost.
    pub(super) fn found(self) -> Option<(f64, Choices)> {
        let choices = self.order.into_iter().zip(self.best?).collect();
        Some((self.cost, choices))
    }

    /// `spent` is the true cost so far, `charged` the same with the prices of pools on top.
    fn visit(&mut self, place: usize, spent: f64, charged: f64) {
        let Some(index) = self.order.get(place).copied() else {
            if spent < self.cost - SAME * self.cost.abs() {
                self.cost = spent;
                self.best = Some(self.chosen.clone());
            }
            return;
        };
        let need = &self.problem.needs[index];
        // What this model may cost at the prices before the whole cannot be below the best any more.
        let limit = self.cost + self.whole - charged - self.rest[place + 1];
        let (mut options, are_all) = Search::new(need, self.prices, &self.slack).within(limit);
        self.is_whole &= are_all;
        options.sort_by(|a, b| a.1.total_cmp(&b.1));
        for (choice, price) in options {
            let least = charged + price + self.rest[place + 1] - self.whole;
            if self.nodes == 0 || least >= self.cost {
                return;
            }
            self.nodes -= 1;
            let mut usage = vec![0.0; self.slack.len()];
            need.usage(&choice, &mut usage);
            for (left, used) in self.slack.iter_mut().zip(&usage) {
                *left -= used;
            }
            let cost = need.cost(&choice, &self.free);
            self.chosen[place] = choice;
            self.visit(place + 1, spent + cost, charged + price);
            for (left, used) in self.slack.iter_mut().zip(&usage) {
                *left += used;
            }
        }
    }
}
