//! The best plan by dynamic programming over what is left of the pools: exact where pools are small.
//!
//! ```text
//!  best(i, left) = min over choices of model i:  cost + best(i − 1, left − GPUs)
//! ```

use std::collections::HashMap;

use crate::problem::{Need, Problem};
use crate::search::Search;

/// Most choices of a model, for their number in the table.
const CHOICES: usize = u16::MAX as usize;

/// A choice of a model that no other one beats in cost and GPUs.
struct Choice {
    replicas: Vec<u32>,
    cost: f64,
    /// By pool, in its units.
    taken: Vec<usize>,
}

/// The best choices of all models; `None` where that would take more than so many steps: states of the pools by choices
/// of all models.
pub(super) fn best(problem: &Problem, most: usize) -> Option<Vec<Vec<u32>>> {
    let units = units(problem);
    let sizes: Vec<usize> = problem
        .pools
        .iter()
        .zip(&units)
        .map(|(gpus, unit)| *gpus as usize / unit + 1)
        .collect();
    let states = sizes.iter().try_fold(1_usize, |all, size| {
        all.checked_mul(*size).filter(|all| *all <= most)
    })?;
    let mut models = Vec::with_capacity(problem.needs.len());
    let mut steps = 0_usize;
    for need in &problem.needs {
        let choices = choices(problem, need, &units)?;
        steps = steps.checked_add(states.checked_mul(choices.len())?)?;
        if steps > most || choices.len() > CHOICES {
            return None;
        }
        models.push(choices);
    }
    let mut now = vec![0.0; states];
    let mut taken: Vec<Vec<u16>> = Vec::with_capacity(models.len());
    for choices in &models {
        let (mut next, mut which) = (vec![f64::INFINITY; states], vec![0; states]);
        for (number, choice) in choices.iter().enumerate() {
            take(&sizes, choice, number as u16, &now, &mut next, &mut which);
        }
        now = next;
        taken.push(which);
    }
    let mut state = states - 1;
    if !now[state].is_finite() {
        return None;
    }
    let mut plan = vec![Vec::new(); models.len()];
    for (model, choices) in models.iter().enumerate().rev() {
        let choice = &choices[usize::from(taken[model][state])];
        plan[model].clone_from(&choice.replicas);
        state -= place(&sizes, &choice.taken);
    }
    Some(plan)
}

/// Tries a choice in each state that has room for it, the last pool's states at once.
fn take(sizes: &[usize], choice: &Choice, number: u16, now: &[f64], next: &mut [f64], which: &mut [u16]) {
    let back = place(sizes, &choice.taken);
    let (Some(row), Some(own)) = (sizes.last(), choice.taken.last()) else {
        return;
    };
    let mut left: Vec<usize> = vec![0; sizes.len() - 1];
    for start in (0..next.len()).step_by(*row) {
        if left.iter().zip(&choice.taken).all(|(left, taken)| left >= taken) {
            for state in start + own..start + row {
                let cost = now[state - back] + choice.cost;
                if cost < next[state] {
                    next[state] = cost;
                    which[state] = number;
                }
            }
        }
        for (left, size) in left.iter_mut().zip(sizes).rev() {
            *left += 1;
            if *left < *size {
                break;
            }
            *left = 0;
        }
    }
}

/// The place of a vector in the table: the last pool's numbers follow each other.
fn place(sizes: &[usize], vector: &[usize]) -> usize {
    sizes
        .iter()
        .zip(vector)
        .fold(0, |place, (size, taken)| place * size + taken)
}

/// GPUs that every replica in a pool takes a multiple of.
fn units(problem: &Problem) -> Vec<usize> {
    let mut units = vec![0_usize; problem.pools.len()];
    for column in problem.needs.iter().flat_map(|need| &need.columns) {
        units[column.pool] = greatest_divisor(units[column.pool], column.gpus as usize);
    }
    units.into_iter().map(|unit| unit.max(1)).collect()
}

fn greatest_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_divisor(b, a % b) }
}

/// `None` where they are too many to look at.
fn choices(problem: &Problem, need: &Need, units: &[usize]) -> Option<Vec<Choice>> {
    let free = vec![0.0; problem.pools.len()];
    let (all, are_all) = Search::new(need, &free, &problem.pools).within(f64::INFINITY);
    if !are_all {
        return None;
    }
    let mut cheapest: HashMap<Vec<usize>, (Vec<u32>, f64)> = HashMap::new();
    for (replicas, cost) in all {
        let mut usage = vec![0.0; problem.pools.len()];
        need.usage(&replicas, &mut usage);
        let taken: Vec<usize> = usage
            .iter()
            .zip(units)
            .map(|(used, unit)| *used as usize / unit)
            .collect();
        let known = cheapest.get(&taken);
        if known.is_none_or(|known| cost < known.1) {
            cheapest.insert(taken, (replicas, cost));
        }
    }
    let mut sorted: Vec<Choice> = cheapest
        .into_iter()
        .map(|(taken, (replicas, cost))| Choice {
            replicas,
            cost,
            taken,
        })
        .collect();
    // The same order for the same fleet, whatever the map's.
    sorted.sort_by(|a, b| a.cost.total_cmp(&b.cost).then_with(|| a.taken.cmp(&b.taken)));
    let mut kept: Vec<Choice> = Vec::new();
    for choice in sorted {
        let is_beaten = |better: &Choice| better.taken.iter().zip(&choice.taken).all(|(a, b)| a <= b);
        if !kept.iter().any(is_beaten) {
            kept.push(choice);
        }
    }
    Some(kept)
}
