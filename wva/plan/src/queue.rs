//! How much load one replica takes: a birth-death chain of requests in an engine that batches.
//!
//! ```text
//!  T(n) = α + n·(β·(I+O)/(O+1) + γ·(I+O/2))       iteration with n sequences, ms
//!  n requests leave at μ(n) = n/(prefill(n) + O·decode(n)); beyond N they wait, beyond N+Q they are refused
//! ```
//!
//! Source: the queueing-model analyzer of WVA 0.9. Quantiles are ours: a request that finds n ≥ N others waits an
//! Erlang(n−N+1, μ(N)) time. Upstream sizes by means, which is 10 % too much near the knee.

/// An engine's iteration model and limits, and the requests it serves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Queue {
    /// Time of an iteration without work, ms, above 0.
    pub alpha: f64,
    /// Compute per token, ms.
    pub beta: f64,
    /// Memory access per token of context, ms.
    pub gamma: f64,
    /// Prompt tokens of a request.
    pub input: f64,
    /// Generated tokens of a request, at least 1.
    pub output: f64,
    /// Sequences in a batch, N, at least 1.
    pub batch: u32,
    /// Requests that wait, Q.
    pub waiting: u32,
}

/// What load does to an engine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Requests per second that are served.
    pub throughput: f64,
    /// Mean wait, ms.
    pub wait: f64,
    /// Sequences in service, mean.
    pub busy: f64,
    /// Mean time to the first token, ms.
    pub ttft: f64,
    /// Mean time between two tokens, ms.
    pub itl: f64,
}

/// A limit that a load keeps to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Slo {
    /// Time to the first token, ms.
    pub ttft: Option<f64>,
    /// Mean time between two tokens, ms.
    pub itl: Option<f64>,
    /// Share of the requests that keep to `ttft`, 0..1; `None`: their mean does.
    pub quantile: Option<f64>,
}

impl Queue {
    fn iteration(&self, n: f64) -> f64 {
        let compute = self.beta * (self.input + self.output) / (self.output + 1.0);
        self.alpha + n * (compute + self.gamma * (self.input + self.output / 2.0))
    }

    fn prefill(&self, n: f64) -> f64 {
        if self.input == 0.0 {
            return 0.0;
        }
        self.iteration(n) + (self.beta + self.gamma) * self.input
    }

    fn decode(&self, n: f64) -> f64 {
        self.iteration(n) + self.beta + self.gamma * (self.input + self.output / 2.0)
    }

    /// Requests per millisecond that leave when `n` are there.
    fn rate(&self, n: u32) -> f64 {
        let n = f64::from(n.min(self.batch));
        n / (self.prefill(n) + self.output * self.decode(n))
    }

    /// Loads that can be looked at, requests per second: almost none to almost all.
    pub fn range(&self) -> (f64, f64) {
        (self.rate(1), self.rate(self.batch)).map_both(|rate| rate * 1000.0)
    }

    /// Probability of each number of requests in the engine, at so many per second.
    fn states(&self, load: f64) -> Vec<f64> {
        let arrivals = (load / 1000.0).ln();
        let mut logs = vec![0.0_f64];
        for n in 1..=self.batch + self.waiting {
            let last = logs[logs.len() - 1];
            logs.push(last + arrivals - self.rate(n).ln());
        }
        // As logarithms: the products leave the range of a float.
        let largest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = logs.iter().map(|log| (log - largest).exp()).collect();
        let total: f64 = weights.iter().sum();
        weights.iter().map(|weight| weight / total).collect()
    }

    /// What `load` requests per second do.
    pub fn load(&self, load: f64) -> Load {
        let states = self.states(load);
        let throughput = load / 1000.0 * (1.0 - states[states.len() - 1]);
        let (mut all, mut busy) = (0.0, 0.0);
        for (n, share) in (0..).map(f64::from).zip(&states) {
            all += n * share;
            busy += n.min(f64::from(self.batch)) * share;
        }
        let service = busy / throughput;
        let wait = (all / throughput - service).max(0.0);
        let itl = (service - self.prefill(busy)) / self.output;
        Load {
            throughput: throughput * 1000.0,
            wait,
            busy,
            ttft: wait + self.prefill(busy) + itl,
            itl,
        }
    }

    /// Probability that an accepted request waits longer than `time` ms.
    pub fn waits_longer(&self, load: f64, time: f64) -> f64 {
        let states = self.states(load);
        let accepted = 1.0 - states[states.len() - 1];
        let leave = self.rate(self.batch) * time;
        // Poisson(j; leave) and its sum so far, as far as there are places to wait.
        let (mut term, mut sum, mut share) = ((-leave).exp(), 0.0, 0.0);
        for j in 0..self.waiting {
            if j > 0 {
                term *= leave / f64::from(j);
            }
            sum += term;
            share += states[(self.batch + j) as usize] / accepted * sum;
        }
        share.min(1.0)
    }

    /// Time to the first token, ms, that `quantile` of the requests keep to.
    pub fn ttft_quantile(&self, load: f64, quantile: f64) -> f64 {
        let mean = self.load(load);
        self.wait_quantile(load, quantile) + mean.ttft - mean.wait
    }

    /// The wait, ms, that `quantile` of the accepted requests keep to.
    pub fn wait_quantile(&self, load: f64, quantile: f64) -> f64 {
        let over = 1.0 - quantile;
        let mut high = 1.0;
        while self.waits_longer(load, high) > over && high < 1e9 {
            high *= 2.0;
        }
        let mut low = 0.0;
        if self.waits_longer(load, 0.0) <= over {
            high = 0.0;
        }
        for _ in 0..60 {
            let middle = f64::midpoint(low, high);
            if self.waits_longer(load, middle) > over {
                low = middle;
            } else {
                high = middle;
            }
        }
        high
    }

    /// The largest load in requests per second that keeps to `slo`; 0 when none does.
    pub fn size(&self, slo: &Slo) -> f64 {
        let (slowest, fastest) = self.range();
        let (least, most) = (slowest * 0.001, fastest * 0.999);
        let keeps = |load: f64| {
            let mean = self.load(load);
            let ttft = match slo.quantile {
                Some(quantile) => self.ttft_quantile(load, quantile),
                None => mean.ttft,
            };
            slo.ttft.is_none_or(|limit| ttft <= limit) && slo.itl.is_none_or(|limit| mean.itl <= limit)
        };
        if keeps(most) {
            return most;
        }
        if !keeps(least) {
            return 0.0;
        }
        let (mut low, mut high) = (least, most);
        for _ in 0..100 {
            let middle = f64::midpoint(low, high);
            if keeps(middle) {
                low = middle;
            } else {
                high = middle;
            }
            if high - low <= 1e-7 * high {
                break;
            }
        }
        low
    }
}

trait MapBoth {
    fn map_both(self, map: impl Fn(f64) -> f64) -> Self;
}

impl MapBoth for (f64, f64) {
    fn map_both(self, map: impl Fn(f64) -> f64) -> Self {
        (map(self.0), map(self.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reference vector of WVA's queue model.
    const A: Queue = Queue {
        alpha: 8.0,
        beta: 0.02,
        gamma: 0.0001,
        input: 1000.0,
        output: 200.0,
        batch: 64,
        waiting: 128,
    };

    fn near(value: f64, expected: f64) {
        assert!(
            (value - expected).abs() <= 1e-4 * expected.abs().max(1.0),
            "{value}, not {expected}"
        );
    }

    #[test]
    fn rates_are_the_references() {
        near(A.iteration(1.0), 8.2294);
        near(A.iteration(64.0), 22.6818);
        near(A.prefill(64.0), 42.7818);
        near(A.decode(64.0), 22.8118);
        near(A.range().0, 0.588_163);
        near(A.range().1, 13.897_515);
    }

    #[test]
    fn loads_are_the_references() {
        for (load, throughput, wait, busy, itl, ttft) in [
            (1.0, 1.0, 0.0, 1.7824, 8.7694, 37.2783),
            (5.0, 5.0, 0.0, 11.0482, 10.8950, 41.5295),
            (10.0, 10.0, 0.0608, 31.5494, 15.5980, 50.9964),
            (12.0, 12.0, 29.3659, 45.6069, 18.8101, 86.7384),
            (13.0, 12.9999, 353.5610, 54.7020, 20.8361, 415.0459),
            (13.8, 13.7448, 3316.9322, 62.3482, 22.4687, 3381.8037),
        ] {
            let seen = A.load(load);
            near(seen.throughput, throughput);
            near(seen.wait, wait);
            near(seen.busy, busy);
            near(seen.itl, itl);
            near(seen.ttft, ttft);
        }
    }

    #[test]
    fn tails_are_the_references() {
        for (load, none, time, some) in [
            (12.0, 0.05572, 200.0, 0.03813),
            (12.6, 0.16923, 200.0, 0.13055),
            (13.0, 0.31784, 200.0, 0.26560),
        ] {
            near(A.waits_longer(load, 0.0), none);
            near(A.waits_longer(load, time), some);
        }
        for (load, quantile, expected) in [
            (12.0, 0.99, 905.29),
            (12.6, 0.9, 405.46),
            (12.6, 0.99, 2180.03),
            (13.0, 0.9, 1287.94),
            (13.0, 0.99, 3847.28),
        ] {
            near(A.wait_quantile(load, quantile), expected);
        }
    }

    #[test]
    fn sizes_are_the_references() {
        let ttft = |limit, quantile| {
            A.size(&Slo {
                ttft: Some(limit),
                itl: None,
                quantile,
            })
        };
        for (limit, mean, p90, p99) in [
            (200.0, 12.6292, 12.4167, 11.3917),
            (500.0, 13.0824, 12.6213, 11.6609),
            (1000.0, 13.3582, 12.8718, 12.0238),
        ] {
            near(ttft(limit, None), mean);
            near(ttft(limit, Some(0.9)), p90);
            near(ttft(limit, Some(0.99)), p99);
        }
        let itl = |limit| {
            A.size(&Slo {
                itl: Some(limit),
                ..Slo::default()
            })
        };
        near(itl(14.0), 8.6752);
        near(itl(12.0), 6.5241);
        near(itl(1000.0), A.range().1 * 0.999);
        assert!(itl(1.0) <= 0.0, "no load keeps to it");
    }
}
