//! How long a step takes: a linear model of one forward pass, and fixed latencies that override it.

use std::time::Duration;

/// Work in one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepLoad {
    /// Prompt tokens computed.
    pub prefill_tokens: u64,
    /// Sum over prefill tokens of the context tokens each one attends to.
    pub prefill_pairs: u64,
    /// Sequences that get one more token.
    pub decode_sequences: u64,
    /// Context tokens of those sequences.
    pub decode_context: u64,
}

/// Costs in seconds. A step costs `base` plus each term times its count in [`StepLoad`].
///
/// Before the scheduler sees a request, the front end (HTTP, tokenization) works on it alone for
/// `request` plus `request_token` per prompt token; on top of that each request spends `transit` on its way,
/// beside others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepModel {
    /// Every step: kernel launches, sampling, output.
    pub base: f64,
    /// Per prompt token.
    pub prefill_token: f64,
    /// Per pair of prompt token and context token.
    pub prefill_pair: f64,
    /// Per decoding sequence.
    pub decode_sequence: f64,
    /// Per context token of decoding sequences.
    pub decode_context: f64,
    /// Front end, per request.
    pub request: f64,
    /// Front end, per prompt token.
    pub request_token: f64,
    /// Way to the scheduler and back: sockets, queues between processes.
    pub transit: f64,
}

impl Default for StepModel {
    /// About an 8-billion-parameter model on one data-centre GPU: 25,000 prompt tokens/s, 8 ms per
    /// decode step alone, 16 ms with 128 sequences of 1,000 tokens.
    fn default() -> Self {
        Self {
            base: 0.008,
            prefill_token: 4e-5,
            prefill_pair: 1e-9,
            decode_sequence: 2.5e-5,
            decode_context: 3.5e-8,
            request: 0.0005,
            request_token: 2e-7,
            transit: 0.002,
        }
    }
}

/// A latency with a spread: normally distributed, cut at 0.3 to 1.7 times the mean as llm-d-inference-sim does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latency {
    /// Mean.
    pub mean: Duration,
    /// Standard deviation.
    pub deviation: Duration,
}

/// Prefill latency that grows with the uncached prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefillLatency {
    /// Per request.
    pub overhead: Duration,
    /// Per prompt token that is not in the prefix cache.
    pub per_token: Duration,
}

/// Latencies that replace terms of the step model.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Overrides {
    /// Admission to first token.
    pub first_token: Option<Latency>,
    /// Admission to first token, by prompt length; not together with `first_token`.
    pub prefill: Option<PrefillLatency>,
    /// Token to token.
    pub next_token: Option<Latency>,
    /// Factor on the overridden latencies when all slots are taken; between one request and all slots it is
    /// interpolated. 1 or more; 0 counts as 1.
    pub under_load: f64,
}

/// The step model with overrides and a seeded random source.
#[derive(Clone, Debug)]
pub struct Timing {
    model: StepModel,
    overrides: Overrides,
    jitter: f64,
    random: fastrand::Rng,
}

impl Timing {
    /// `jitter` spreads step times evenly by ± that share (0 to 1).
    pub fn new(model: StepModel, overrides: Overrides, jitter: f64, seed: u64) -> Self {
        Self {
            model,
            overrides,
            jitter,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// The front end's work on a request of `prompt_tokens`; zero when prefill latencies are overridden.
    pub fn front_end(&self, prompt_tokens: usize) -> Duration {
        if self.prefill_overridden() {
            return Duration::ZERO;
        }
        Duration::from_secs_f64(self.model.request + self.model.request_token * prompt_tokens as f64)
    }

    /// The rest of the way; zero when prefill latencies are overridden.
    pub fn transit(&self) -> Duration {
        if self.prefill_overridden() {
            Duration::ZERO
        } else {
            Duration::from_secs_f64(self.model.transit)
        }
    }

    /// Duration of one step.
    pub fn step(&mut self, load: &StepLoad) -> Duration {
        let model = &self.model;
        let mut seconds = 0.0;
        let mut modelled = false;
        if load.prefill_tokens > 0 && !self.prefill_overridden() {
            modelled = true;
            seconds += model.prefill_token * load.prefill_tokens as f64
                + model.prefill_pair * load.prefill_pairs as f64;
        }
        if load.decode_sequences > 0 && self.overrides.next_token.is_none() {
            modelled = true;
            seconds += model.decode_sequence * load.decode_sequences as f64
                + model.decode_context * load.decode_context as f64;
        }
        if !modelled {
            return Duration::ZERO;
        }
        seconds += model.base;
        if self.jitter > 0.0 {
            seconds *= 1.0 + self.jitter * (2.0 * self.random.f64() - 1.0);
        }
        Duration::from_secs_f64(seconds)
    }

    /// Overridden time from admission to first token, if any. `load` is the share of other slots taken, 0 to 1.
    pub fn first_token(&mut self, uncached_tokens: usize, load: f64) -> Option<Duration> {
        let latency = match (self.overrides.first_token, self.overrides.prefill) {
            (Some(latency), _) => latency,
            (None, Some(prefill)) => {
                let tokens = u32::try_from(uncached_tokens).unwrap_or(u32::MAX);
                Latency {
                    mean: prefill.overhead + prefill.per_token * tokens,
                    deviation: Duration::ZERO,
                }
            }
            (None, None) => return None,
        };
        Some(self.draw(latency, load))
    }

    /// Overridden time between two tokens, if any.
    pub fn next_token(&mut self, load: f64) -> Option<Duration> {
        self.overrides.next_token.map(|latency| self.draw(latency, load))
    }

    fn prefill_overridden(&self) -> bool {
        self.overrides.first_token.is_some() || self.overrides.prefill.is_some()
    }

    fn draw(&mut self, latency: Latency, load: f64) -> Duration {
        let mean = latency.mean.as_secs_f64();
        let mut seconds = mean;
        if !latency.deviation.is_zero() {
            // Sum of twelve uniform draws: mean 6, variance 1 (Irwin–Hall), close enough to normal.
            let standard = (0..12).map(|_| self.random.f64()).sum::<f64>() - 6.0;
            seconds = (mean + standard * latency.deviation.as_secs_f64()).clamp(0.3 * mean, 1.7 * mean);
        }
        Duration::from_secs_f64(seconds * (1.0 + (self.overrides.under_load.max(1.0) - 1.0) * load))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixed(milliseconds: u64) -> Latency {
        Latency {
            mean: Duration::from_millis(milliseconds),
            deviation: Duration::ZERO,
        }
    }

    #[test]
    fn a_step_is_the_sum_of_its_terms() {
        let model = StepModel {
            base: 1.0,
            prefill_token: 0.1,
            prefill_pair: 0.01,
            decode_sequence: 0.5,
            decode_context: 0.001,
            request: 0.25,
            request_token: 0.05,
            transit: 0.5,
        };
        let mut timing = Timing::new(model, Overrides::default(), 0.0, 0);
        let load = StepLoad {
            prefill_tokens: 10,
            prefill_pairs: 100,
            decode_sequences: 2,
            decode_context: 1000,
        };
        assert_eq!(timing.step(&load), Duration::from_secs(5));
        assert_eq!(timing.front_end(5), Duration::from_millis(500));
        assert_eq!(timing.transit(), Duration::from_millis(500));
        assert_eq!(timing.first_token(5, 1.0), None);
    }

    #[test]
    fn overrides_take_the_place_of_their_terms_and_grow_under_load() {
        let overrides = Overrides {
            first_token: Some(fixed(100)),
            next_token: Some(fixed(10)),
            under_load: 3.0,
            ..Overrides::default()
        };
        let mut timing = Timing::new(StepModel::default(), overrides, 0.0, 0);
        let load = StepLoad {
            prefill_tokens: 10,
            prefill_pairs: 100,
            decode_sequences: 2,
            decode_context: 1000,
        };
        assert_eq!(timing.step(&load), Duration::ZERO);
        assert_eq!(timing.first_token(9, 0.0), Some(Duration::from_millis(100)));
        assert_eq!(timing.next_token(0.5), Some(Duration::from_millis(20)));
        assert_eq!(timing.next_token(1.0), Some(Duration::from_millis(30)));
    }

    #[test]
    fn a_spread_stays_within_its_cut_and_repeats_by_seed() {
        let spread = Latency {
            mean: Duration::from_millis(10),
            deviation: Duration::from_millis(9),
        };
        let overrides = Overrides {
            next_token: Some(spread),
            ..Overrides::default()
        };
        let draws = |seed| {
            let mut timing = Timing::new(StepModel::default(), overrides, 0.0, seed);
            (0..200)
                .filter_map(|_| timing.next_token(0.0))
                .collect::<Vec<_>>()
        };
        assert_eq!(draws(4), draws(4));
        assert_ne!(draws(4), draws(5));
        assert!(draws(4).iter().all(|d| (3_000..=17_000).contains(&d.as_micros())));
    }
}
