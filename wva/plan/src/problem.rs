//! A fleet as numbers: per model the columns that may serve it, and what all of them share.

use crate::fleet::Fleet;

/// A variant.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    /// Its place among the model's variants.
    pub(crate) variant: usize,
    pub(crate) pool: usize,
    pub(crate) gpus: f64,
    /// Units per second of a replica, above 0.
    pub(crate) rate: f64,
    /// What a replica costs over the horizon.
    pub(crate) price: f64,
    pub(crate) current: u32,
    pub(crate) min: u32,
    /// Most replicas that can be of use.
    pub(crate) most: u32,
    pub(crate) start: f64,
    pub(crate) stop: f64,
}

/// A model.
#[derive(Clone, Debug)]
pub(crate) struct Need {
    /// Units per second, with the reserve of the target utilisation.
    pub(crate) demand: f64,
    /// Loss per unit over the horizon.
    pub(crate) loss: f64,
    pub(crate) columns: Vec<Column>,
}

/// A fleet.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    /// GPUs per pool.
    pub(crate) pools: Vec<f64>,
    pub(crate) needs: Vec<Need>,
}

impl Problem {
    pub(crate) fn new(fleet: &Fleet) -> Self {
        let hours = fleet.horizon_hours;
        let needs = fleet.models.iter().map(|model| {
            let demand = model.demand / model.target_utilization;
            let columns = model.variants.iter().enumerate().filter_map(|(index, variant)| {
                let pool = fleet.pools.iter().position(|pool| pool.name == variant.pool)?;
                let rate = variant.rate();
                let price = variant.price * fleet.pools[pool].price_factor * hours;
                let fits = fleet.pools[pool].gpus / variant.gpus;
                // More than the demand needs is kept only where the end costs more than the stay.
                let needed = if rate > 0.0 {
                    (demand / rate).ceil() as u32
                } else {
                    0
                };
                let useful = if variant.stop_price > price {
                    needed.max(variant.current)
                } else {
                    needed
                };
                let most = useful
                    .max(variant.min)
                    .min(variant.max.unwrap_or(u32::MAX))
                    .min(fits.max(variant.min));
                Some(Column {
                    variant: index,
                    pool,
                    gpus: f64::from(variant.gpus),
                    rate,
                    price,
                    current: variant.current,
                    min: variant.min,
                    most,
                    start: variant.start_price,
                    stop: variant.stop_price,
                })
            });
            Need {
                demand,
                loss: model.loss_per_unit * hours,
                columns: columns.collect(),
            }
        });
        Self {
            pools: fleet.pools.iter().map(|pool| f64::from(pool.gpus)).collect(),
            needs: needs.collect(),
        }
    }
}

impl Column {
    /// Cost of so many replicas, with the prices of pools on top of their own.
    pub(crate) fn cost(&self, replicas: u32, prices: &[f64]) -> f64 {
        let started = f64::from(replicas.saturating_sub(self.current));
        let stopped = f64::from(self.current.saturating_sub(replicas));
        let each = self.price + prices[self.pool] * self.gpus;
        f64::from(replicas) * each + started * self.start + stopped * self.stop
    }
}

impl Need {
    /// Cost of a choice, what nobody serves included.
    pub(crate) fn cost(&self, choice: &[u32], prices: &[f64]) -> f64 {
        let columns = self.columns.iter().zip(choice);
        let cost: f64 = columns
            .map(|(column, replicas)| column.cost(*replicas, prices))
            .sum();
        cost + self.missing(choice) * self.loss
    }

    /// Units per second that nobody serves.
    pub(crate) fn missing(&self, choice: &[u32]) -> f64 {
        let columns = self.columns.iter().zip(choice);
        let served: f64 = columns
            .map(|(column, replicas)| column.rate * f64::from(*replicas))
            .sum();
        (self.demand - served).max(0.0)
    }

    /// GPUs per pool.
    pub(crate) fn usage(&self, choice: &[u32], usage: &mut [f64]) {
        for (column, replicas) in self.columns.iter().zip(choice) {
            usage[column.pool] += column.gpus * f64::from(*replicas);
        }
    }
}
