//! Plans that fit: the choices at the best prices made to fit, then improved model by model and group by group.

mod repair;
mod table;
mod walk;

use crate::bound::Bound;
use crate::problem::Problem;
use crate::search::Search;
use walk::Walk;

/// Passes of improvement, model by model.
const PASSES: usize = 3;
/// Most steps of a table over all models: about a second without optimisation.
const STEPS: usize = 40_000_000;
/// Most steps of one over a group.
const GROUP_STEPS: usize = 1_000_000;
/// Up to so many models groups have tables: a large fleet is close to its bound without.
const FEW: usize = 64;
/// Up to so many models the best plan is looked for exhaustively.
const SMALL: usize = 12;
/// Most nodes of that search, and of one over a group.
const NODES: usize = 500_000;
const GROUP_NODES: usize = 400;
/// Groups that are solved again, per model.
const GROUPS: usize = 6;
/// A plan this close to its bound, as a share of the cost, is good enough.
const CLOSE: f64 = 5e-4;
/// Costs closer than this share are the same.
pub(crate) const SAME: f64 = 1e-9;

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
    if let Some(choices) = table::best(problem, STEPS) {
        return Some(Incumbent {
            cost: cost(problem, &choices),
            choices,
            is_proved: true,
        });
    }
    let choices = repair::fit(problem, bound).or_else(|| least(problem))?;
    let mut best = Incumbent {
        cost: cost(problem, &choices),
        choices,
        is_proved: false,
    };
    improve(problem, &mut best);
    let count = problem.needs.len();
    if !is_close(bound, &best) {
        regroup(problem, bound, &mut best);
        improve(problem, &mut best);
    }
    if count <= SMALL {
        let all: Vec<usize> = (0..count).collect();
        let mut slack = left(problem, &best.choices);
        best.is_proved = again(problem, bound, &mut best, &mut slack, (&all, NODES));
    }
    Some(best)
}

/// Whether a better plan would not be worth the time to find it.
fn is_close(bound: &Bound, best: &Incumbent) -> bool {
    best.cost - bound.cost <= CLOSE * best.cost.abs()
}

/// The least replicas of all, if they fit.
fn least(problem: &Problem) -> Option<Vec<Vec<u32>>> {
    let columns = problem.needs.iter().map(|need| need.columns.iter());
    let choices: Vec<Vec<u32>> = columns
        .map(|columns| columns.map(|column| column.min).collect())
        .collect();
    let fits = left(problem, &choices).iter().all(|left| *left >= 0.0);
    fits.then_some(choices)
}

pub(crate) fn used(problem: &Problem, choices: &[Vec<u32>]) -> Vec<f64> {
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

/// What the pools have left.
fn left(problem: &Problem, choices: &[Vec<u32>]) -> Vec<f64> {
    let usage = used(problem, choices);
    problem
        .pools
        .iter()
        .zip(usage)
        .map(|(there, used)| there - used)
        .collect()
}

/// Each model again at its true cost in what the others leave, until that saves nothing.
fn improve(problem: &Problem, best: &mut Incumbent) {
    let free = vec![0.0; problem.pools.len()];
    let mut slack = left(problem, &best.choices);
    for _ in 0..PASSES {
        let before = best.cost;
        for (need, choice) in problem.needs.iter().zip(&mut best.choices) {
            give(need, choice, &mut slack, 1.0);
            let now = need.cost(choice, &free);
            let found = Search::new(need, &free, &slack).best();
            if let Some(found) = found.filter(|found| found.cost < now) {
                best.cost += found.cost - now;
                *choice = found.choice;
            }
            give(need, choice, &mut slack, -1.0);
        }
        if before - best.cost <= SAME * before.abs() {
            return;
        }
    }
}

/// Gives the GPUs of a choice back (1), or takes them (-1).
fn give(need: &crate::problem::Need, choice: &[u32], slack: &mut [f64], sign: f64) {
    let mut usage = vec![0.0; slack.len()];
    need.usage(choice, &mut usage);
    for (slack, used) in slack.iter_mut().zip(usage) {
        *slack += sign * used;
    }
}

/// Groups of models that share pools, each solved again together in what the others leave.
fn regroup(problem: &Problem, bound: &Bound, best: &mut Incumbent) {
    let count = problem.needs.len();
    // The same plan for the same fleet: no chance is involved.
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut draw = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let mut slack = left(problem, &best.choices);
    for round in 0..GROUPS * count {
        if is_close(bound, best) {
            return;
        }
        let mut group = vec![round % count];
        for _ in 0..=draw(if count <= FEW { 6 } else { 3 }) {
            let other = draw(count);
            if !group.contains(&other) {
                group.push(other);
            }
        }
        again(problem, bound, best, &mut slack, (&group, GROUP_NODES));
    }
}

/// Looks for cheaper choices of a group, all others as they are; whether it looked at everything. `slack` is what the
/// pools have left.
fn again(
    problem: &Problem,
    bound: &Bound,
    best: &mut Incumbent,
    slack: &mut [f64],
    (group, nodes): (&[usize], usize),
) -> bool {
    let free = vec![0.0; problem.pools.len()];
    let mut now = 0.0;
    for index in group {
        let (need, choice) = (&problem.needs[*index], &best.choices[*index]);
        give(need, choice, slack, 1.0);
        now += need.cost(choice, &free);
    }
    let has_table = problem.needs.len() <= FEW && group.len() < problem.needs.len();
    let by_table = has_table.then(|| exactly(problem, group, slack)).flatten();
    let (is_whole, found) = if let Some(choices) = by_table {
        let costs = group.iter().zip(&choices);
        let cost: f64 = costs
            .map(|(index, choice)| problem.needs[*index].cost(choice, &free))
            .sum();
        let choices = group.iter().copied().zip(choices).collect();
        let is_cheaper = cost < now - SAME * now.abs();
        (true, is_cheaper.then_some((cost, choices)))
    } else {
        let mut walk = Walk::new(problem, &bound.prices, group, slack.to_vec(), now, nodes);
        (walk.run(), walk.found())
    };
    if let Some((cost, choices)) = found {
        best.cost += cost - now;
        for (index, choice) in choices {
            best.choices[index] = choice;
        }
    }
    for index in group {
        give(&problem.needs[*index], &best.choices[*index], slack, -1.0);
    }
    is_whole
}

/// The best choices of a group in `slack`, by a table.
fn exactly(problem: &Problem, group: &[usize], slack: &[f64]) -> Option<Vec<Vec<u32>>> {
    let needs = group.iter().map(|index| problem.needs[*index].clone());
    let part = Problem {
        pools: slack.to_vec(),
        needs: needs.collect(),
    };
    table::best(&part, GROUP_STEPS)
}
