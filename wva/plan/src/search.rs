//! The choices of one model, by exact depth-first search.

use crate::problem::Need;

/// Most choices, whole or begun, that one search looks at.
const NODES: usize = 200_000;

/// The cheapest choice of a search.
pub(crate) struct Found {
    pub(crate) choice: Vec<u32>,
    pub(crate) cost: f64,
    /// No choice costs less: the cost, or what is known of a search that was cut off.
    pub(crate) bound: f64,
}

/// Searches choices of one model at given prices of pools, within so many GPUs per pool.
pub(crate) struct Search<'a> {
    need: &'a Need,
    prices: &'a [f64],
    /// Columns by what a unit of their capacity costs.
    order: Vec<usize>,
    /// Cheapest unit of this column and those after it, or of the loss.
    unit: Vec<f64>,
    /// GPUs that are left per pool.
    slack: Vec<f64>,
    choice: Vec<u32>,
    /// Choices above this cost are not looked at.
    limit: f64,
    nodes: usize,
}

impl<'a> Search<'a> {
    pub(crate) fn new(need: &'a Need, prices: &'a [f64], slack: &[f64]) -> Self {
        let unit = |index: usize| {
            let column = &need.columns[index];
            (column.price + prices[column.pool] * column.gpus) / column.rate.max(f64::MIN_POSITIVE)
        };
        let mut order: Vec<usize> = (0..need.columns.len()).collect();
        order.sort_by(|a, b| unit(*a).total_cmp(&unit(*b)));
        let mut cheapest = vec![need.loss; order.len() + 1];
        for place in (0..order.len()).rev() {
            cheapest[place] = cheapest[place + 1].min(unit(order[place]));
        }
        Self {
            need,
            prices,
            unit: cheapest,
            choice: vec![0; order.len()],
            order,
            slack: slack.to_vec(),
            limit: f64::INFINITY,
            nodes: 0,
        }
    }

    /// The cheapest choice; `None` where the least replicas do not fit.
    pub(crate) fn best(mut self) -> Option<Found> {
        let relaxed = self.need.demand * self.unit[0];
        let mut best = None;
        self.visit(0, 0.0, self.need.demand, &mut |choice, cost| {
            best = Some((choice.to_vec(), cost));
            cost
        });
        let is_whole = self.nodes < NODES;
        best.map(|(choice, cost)| Found {
            choice,
            cost,
            bound: if is_whole { cost } else { relaxed.min(cost) },
        })
    }

    /// Every choice that costs at most `limit`, in any order, and whether these are all.
    pub(crate) fn within(mut self, limit: f64) -> (Vec<(Vec<u32>, f64)>, bool) {
        self.limit = limit;
        let mut all = Vec::new();
        self.visit(0, 0.0, self.need.demand, &mut |choice, cost| {
            all.push((choice.to_vec(), cost));
            limit
        });
        (all, self.nodes < NODES)
    }

    /// Tries the columns from `place` on. `take` gets each whole choice below the limit and gives the next limit.
    fn visit(&mut self, place: usize, spent: f64, missing: f64, take: &mut dyn FnMut(&[u32], f64) -> f64) {
        self.nodes += 1;
        if self.nodes > NODES || spent + missing.max(0.0) * self.unit[place] > self.limit + 1e-9 {
            return;
        }
        let Some(index) = self.order.get(place).copied() else {
            let cost = spent + missing.max(0.0) * self.need.loss;
            if cost <= self.limit {
                self.limit = take(&self.choice, cost);
            }
            return;
        };
        let column = &self.need.columns[index];
        let fits = (self.slack[column.pool] / column.gpus + 1e-9).max(0.0) as u32;
        if fits < column.min {
            return;
        }
        let each = column.price + self.prices[column.pool] * column.gpus;
        let needed = (missing.max(0.0) / column.rate.max(f64::MIN_POSITIVE)).ceil() as u32;
        // More than is missing stays only where its end costs more.
        let useful = if column.stop > each {
            needed.max(column.current)
        } else {
            needed
        };
        let most = useful.clamp(column.min, column.most.max(column.min)).min(fits);
        // From the most on: the cheapest columns come first, so that a good choice is found early.
        for replicas in (column.min..=most).rev() {
            let taken = column.gpus * f64::from(replicas);
            self.slack[column.pool] -= taken;
            self.choice[index] = replicas;
            let cost = column.cost(replicas, self.prices);
            self.visit(
                place + 1,
                spent + cost,
                missing - column.rate * f64::from(replicas),
                take,
            );
            self.slack[column.pool] += taken;
        }
        self.choice[index] = 0;
    }
}
