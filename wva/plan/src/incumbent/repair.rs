//! The models' own choices at the bound's prices, made to fit: who can free a GPU for the least moves first.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::used;
use crate::bound::Bound;
use crate::problem::Problem;
use crate::search::Search;

/// A model that can leave GPUs of an overfull pool.
struct Move {
    /// What a GPU that it frees costs.
    price: f64,
    model: usize,
    choice: Vec<u32>,
}

impl PartialEq for Move {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Move {}

impl PartialOrd for Move {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Move {
    /// The cheapest one is the greatest, for the heap.
    fn cmp(&self, other: &Self) -> Ordering {
        other
            .price
            .total_cmp(&self.price)
            .then_with(|| other.model.cmp(&self.model))
    }
}

/// Choices that fit; `None` where nobody can move.
pub(super) fn fit(problem: &Problem, bound: &Bound) -> Option<Vec<Vec<u32>>> {
    let mut choices = bound.choices.clone();
    let mut usage = used(problem, &choices);
    for pool in 0..problem.pools.len() {
        let mut moves: BinaryHeap<Move> = (0..problem.needs.len())
            .filter_map(|model| cheapest(problem, bound, &usage, (model, &choices[model]), pool))
            .collect();
        while usage[pool] > problem.pools[pool] {
            let Move { model, choice, .. } = moves.pop()?;
            let need = &problem.needs[model];
            let mut change = vec![0.0; usage.len()];
            need.usage(&choice, &mut change);
            let mut own = vec![0.0; usage.len()];
            need.usage(&choices[model], &mut own);
            change.iter_mut().zip(&own).for_each(|(new, old)| *new -= old);
            // Another model's move may have filled the pool that this one goes to.
            let fits =
                |other: usize| change[other] <= 0.0 || usage[other] + change[other] <= problem.pools[other];
            if !(0..usage.len()).all(fits) {
                moves.extend(cheapest(problem, bound, &usage, (model, &choices[model]), pool));
                continue;
            }
            usage
                .iter_mut()
                .zip(&change)
                .for_each(|(all, change)| *all += change);
            choices[model] = choice;
            moves.extend(cheapest(problem, bound, &usage, (model, &choices[model]), pool));
        }
    }
    Some(choices)
}

/// The cheapest way of a model to use less of `pool` and not more of any pool that is full.
fn cheapest(
    problem: &Problem,
    bound: &Bound,
    usage: &[f64],
    (model, choice): (usize, &[u32]),
    pool: usize,
) -> Option<Move> {
    let need = &problem.needs[model];
    let mut own = vec![0.0; usage.len()];
    need.usage(choice, &mut own);
    if own[pool] < 1.0 || usage[pool] <= problem.pools[pool] {
        return None;
    }
    let slack: Vec<f64> = (0..usage.len())
        .map(|other| match other {
            _ if other == pool => own[pool] - 1.0,
            // Pools before this one fit already, those after it come to their turn.
            _ => own[other] + (problem.pools[other] - usage[other]).max(0.0),
        })
        .collect();
    let found = Search::new(need, &bound.prices, &slack).best()?;
    let mut other = vec![0.0; usage.len()];
    need.usage(&found.choice, &mut other);
    let extra = found.cost - need.cost(choice, &bound.prices);
    Some(Move {
        price: extra / (own[pool] - other[pool]),
        model,
        choice: found.choice,
    })
}
