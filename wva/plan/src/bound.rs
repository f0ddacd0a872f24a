//! The lower bound: prices of pools under which every model chooses for itself.
//!
//! L(p) = Σ over models of its cheapest choice at prices p, less p × GPUs of the pools, is below the cost of every plan.
//! Its largest value is found by cutting planes: each p that was looked at bounds L by a plane, a small LP finds the p
//! where all planes allow the most, inside a box around the best one so far.

use good_lp::{Expression, ProblemVariables, Solution, SolverModel, constraint, microlp, variable};

use crate::problem::Problem;
use crate::search::Search;

/// Most prices that are looked at.
const LOOKS: usize = 120;
/// Below this share of the bound more looks are of no use.
const CLOSE: f64 = 1e-6;

/// What was found.
pub(crate) struct Bound {
    /// No plan costs less.
    pub(crate) cost: f64,
    /// Price of a GPU of each pool over the horizon.
    pub(crate) prices: Vec<f64>,
    /// Each model's choice at these prices.
    pub(crate) choices: Vec<Vec<u32>>,
}

/// L is at most `value + slope·(p − at)`.
struct Plane {
    at: Vec<f64>,
    value: f64,
    slope: Vec<f64>,
}

/// Looks for the largest bound. `None`: a model's least replicas do not fit into the pools.
pub(crate) fn find(problem: &Problem) -> Option<Bound> {
    let pools = problem.pools.len();
    let mut best = look(problem, &vec![0.0; pools])?;
    let mut planes = vec![best.1];
    let mut bound = best.0;
    let mut reach = reach(problem);
    for _ in 0..LOOKS {
        let Some((prices, promise)) = master(&planes, &bound.prices, &reach) else {
            break;
        };
        if promise - bound.cost <= CLOSE * bound.cost.abs().max(1.0) {
            break;
        }
        best = look(problem, &prices)?;
        let is_better = best.0.cost > bound.cost;
        planes.push(best.1);
        // A step that paid may go further, one that did not was too long.
        let factor = if is_better { 2.0 } else { 0.6 };
        for reach in &mut reach {
            *reach *= factor;
        }
        if is_better {
            bound = best.0;
        }
    }
    Some(bound)
}

/// First widths of the box: what a GPU costs at most in any variant of the pool.
fn reach(problem: &Problem) -> Vec<f64> {
    let mut reach = vec![1.0_f64; problem.pools.len()];
    for column in problem.needs.iter().flat_map(|need| &need.columns) {
        reach[column.pool] = reach[column.pool].max(column.price / column.gpus);
    }
    reach
}

fn look(problem: &Problem, prices: &[f64]) -> Option<(Bound, Plane)> {
    let mut usage = vec![0.0; problem.pools.len()];
    let (mut cost, mut least) = (0.0, 0.0);
    let mut choices = Vec::with_capacity(problem.needs.len());
    for need in &problem.needs {
        let found = Search::new(need, prices, &problem.pools).best()?;
        need.usage(&found.choice, &mut usage);
        cost += found.cost;
        least += found.bound;
        choices.push(found.choice);
    }
    let slope: Vec<f64> = usage
        .iter()
        .zip(&problem.pools)
        .map(|(used, there)| used - there)
        .collect();
    let charges = prices.iter().zip(&problem.pools);
    let charged: f64 = charges.map(|(price, there)| price * there).sum();
    let bound = Bound {
        cost: least - charged,
        prices: prices.to_vec(),
        choices,
    };
    let plane = Plane {
        at: prices.to_vec(),
        // Of the choices that were found: it is above L everywhere, also where a search was cut off.
        value: cost - charged,
        slope,
    };
    Some((bound, plane))
}

/// The prices in the box around `center` that the planes allow most, and how much.
fn master(planes: &[Plane], center: &[f64], reach: &[f64]) -> Option<(Vec<f64>, f64)> {
    let mut variables = ProblemVariables::new();
    let prices: Vec<_> = center
        .iter()
        .zip(reach)
        .map(|(center, reach)| variables.add(variable().min((center - reach).max(0.0)).max(center + reach)))
        .collect();
    let most = variables.add(variable());
    let mut model = variables.maximise(most).using(microlp);
    for plane in planes {
        let mut allowed = Expression::from(plane.value);
        for ((price, at), slope) in prices.iter().zip(&plane.at).zip(&plane.slope) {
            allowed += (*price - *at) * *slope;
        }
        model = model.with(constraint!(most <= allowed));
    }
    let solution = model.solve().ok()?;
    let found = prices
        .iter()
        .map(|price| solution.value(*price).max(0.0))
        .collect();
    Some((found, solution.value(most)))
}
