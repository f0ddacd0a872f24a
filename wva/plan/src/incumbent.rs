//! Plans that fit: the choices at the best prices made to fit, improved model by model, proved where the fleet is small.

use crate::bound::Bound;
use crate::problem::Problem;
use crate::search::Search;

/// Passes of improvement.
const PASSES: usize = 3;
/// Up to so many models the best plan is looked for exhaustively.
const SMALL: usize = 12;
/// Most nodes of that search.
const NODES: usize = 2_000_000;
/// Costs closer than this share are the same.
const SAME: f64 = 1e-9;

/// Choices of all models that fit into the pools together.
#[derive(Clone, Debug)]
pub(crate) struct Incumbent {
    pub(crate) choices: Vec<Vec<u32>>,
    pub(crate) cost: f64,
    /// The exhaustive search came to its end: nothing is cheaper.
    pub(crate) is_proved: bool,
}

/// The best plan that is found.
pub(crate) fn find(problem: &Problem, bound: &Bound) -> Option<Incumbent> {
    let mut best = fit(problem, bound)?;
    improve(problem, &mut best);
    if problem.needs.len() <= SMALL {
        exhaust(problem, bound, &mut best);
    }
    Some(best)
}

fn used(problem: &Problem, choices: &[Vec<u32>]) -> Vec<f64> {
    let mut usage = vec![0.0; problem.pools.len()];
    for (need, choice) in problem.needs.iter().zip(choices) {
        need.usage(choice, &mut usage);
    }
    usage
}

fn cost(problem: &Problem, choices: &[Vec<u32>]) -> f64 {
    let free = vec![0.0; problem.pools.len()];
    let each = problem.needs.iter().zip(choices);
    each.map(|(need, choice)| need.cost(choice, &free)).sum()
}

/// Takes the models one by one, those first whose demand is dearest to miss, each with its cheapest choice at the
/// bound's prices in what is left. The least replicas of all others are kept free.
fn fit(problem: &Problem, bound: &Bound) -> Option<Incumbent> {
    let least = |index: usize| -> Vec<u32> {
        problem.needs[index]
            .columns
            .iter()
            .map(|column| column.min)
            .collect()
    };
    let mut choices: Vec<Vec<u32>> = (0..problem.needs.len()).map(least).collect();
    let all_least = used(problem, &choices);
    if all_least
        .iter()
        .zip(&problem.pools)
        .any(|(used, there)| used > there)
    {
        return None;
    }
    let mut order: Vec<usize> = (0..problem.needs.len()).collect();
    order.sort_by(|a, b| problem.needs[*b].loss.total_cmp(&problem.needs[*a].loss));
    for index in order {
        let slack = slack_without(problem, &choices, index);
        let wanted = &bound.choices[index];
        let mut usage = vec![0.0; problem.pools.len()];
        problem.needs[index].usage(wanted, &mut usage);
        if usage.iter().zip(&slack).all(|(used, left)| used <= left) {
            choices[index].clone_from(wanted);
        } else if let Some(found) = Search::new(&problem.needs[index], &bound.prices, &slack).best() {
            choices[index] = found.choice;
        }
    }
    let cost = cost(problem, &choices);
    Some(Incumbent {
        choices,
        cost,
        is_proved: false,
    })
}

fn slack_without(problem: &Problem, choices: &[Vec<u32>], index: usize) -> Vec<f64> {
    let mut usage = used(problem, choices);
    let mut own = vec![0.0; problem.pools.len()];
    problem.needs[index].usage(&choices[index], &mut own);
    let there = problem.pools.iter().zip(&usage).zip(&own);
    usage = there.map(|((there, used), own)| there - used + own).collect();
    usage
}

/// Each model again at its true cost in what the others leave.
fn improve(problem: &Problem, best: &mut Incumbent) {
    let free = vec![0.0; problem.pools.len()];
    for _ in 0..PASSES {
        let before = best.cost;
        for (index, need) in problem.needs.iter().enumerate() {
            let slack = slack_without(problem, &best.choices, index);
            if let Some(found) = Search::new(need, &free, &slack).best()
                && found.cost < need.cost(&best.choices[index], &free)
            {
                best.choices[index] = found.choice;
            }
        }
        best.cost = cost(problem, &best.choices);
        if before - best.cost <= SAME * before.abs() {
            return;
        }
    }
}

/// Depth-first over the models: what is left of them costs at least their cheapest choices at the bound's prices, less
/// what these prices charge for the GPUs that are left.
fn exhaust(problem: &Problem, bound: &Bound, best: &mut Incumbent) {
    let free = vec![0.0; problem.pools.len()];
    let least: Vec<f64> = problem
        .needs
        .iter()
        .zip(&bound.choices)
        .map(|(need, choice)| need.cost(choice, &bound.prices))
        .collect();
    // Models with much at stake first.
    let mut order: Vec<usize> = (0..problem.needs.len()).collect();
    order.sort_by(|a, b| least[*b].total_cmp(&least[*a]));
    let mut rest = vec![0.0; order.len() + 1];
    for place in (0..order.len()).rev() {
        rest[place] = rest[place + 1] + least[order[place]];
    }
    let mut walk = Walk {
        problem,
        prices: &bound.prices,
        free: &free,
        order,
        rest,
        slack: problem.pools.clone(),
        chosen: vec![Vec::new(); problem.needs.len()],
        nodes: 0,
        is_whole: true,
        best,
    };
    walk.visit(0, 0.0, 0.0);
    let is_whole = walk.is_whole && walk.nodes < NODES;
    best.is_proved = is_whole;
}

struct Walk<'a> {
    problem: &'a Problem,
    prices: &'a [f64],
    free: &'a [f64],
    order: Vec<usize>,
    rest: Vec<f64>,
    slack: Vec<f64>,
    chosen: Vec<Vec<u32>>,
    nodes: usize,
    /// Nothing was left out.
    is_whole: bool,
    best: &'a mut Incumbent,
}

impl Walk<'_> {
    /// `spent` is the true cost so far, `charged` the same with the prices of pools on top.
    fn visit(&mut self, place: usize, spent: f64, charged: f64) {
        let Some(index) = self.order.get(place).copied() else {
            if spent < self.best.cost - SAME * self.best.cost.abs() {
                self.best.cost = spent;
                self.best.choices.clone_from(&self.chosen);
            }
            return;
        };
        let need = &self.problem.needs[index];
        let whole: f64 = self
            .prices
            .iter()
            .zip(&self.problem.pools)
            .map(|(price, there)| price * there)
            .sum();
        // What this model may cost at the prices before the whole cannot be below the best any more.
        let limit = self.best.cost + whole - charged - self.rest[place + 1];
        let (mut options, are_all) = Search::new(need, self.prices, &self.slack).within(limit);
        self.is_whole &= are_all;
        options.sort_by(|a, b| a.1.total_cmp(&b.1));
        for (choice, price) in options {
            self.nodes += 1;
            if self.nodes >= NODES || charged + price + self.rest[place + 1] - whole >= self.best.cost {
                return;
            }
            let mut usage = vec![0.0; self.slack.len()];
            need.usage(&choice, &mut usage);
            for (left, used) in self.slack.iter_mut().zip(&usage) {
                *left -= used;
            }
            let cost = need.cost(&choice, self.free);
            self.chosen[index] = choice;
            self.visit(place + 1, spent + cost, charged + price);
            for (left, used) in self.slack.iter_mut().zip(&usage) {
                *left += used;
            }
        }
    }
}
