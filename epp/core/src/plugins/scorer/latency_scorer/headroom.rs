//! Scores by headroom: which endpoints are compared, and how.
//!
//! The first of these sets that is not empty is scored, all others get 0:
//! 1. no headroom below 0, or no prediction; by the configured strategy;
//! 2. nothing of ours running there;
//! 3. only the time per output token misses its objective; 4. only the time to the first token does; 5. both do.
//!
//! From the second on the least miss is best. In a set each headroom's size is scaled to 0..=1 between its extremes; a
//! headroom that is the same everywhere says nothing, and its weight goes to the other.
//!
//! Unlike upstream an endpoint without a prediction stands in the middle: with a headroom of 0, as it would have there,
//! it won each time by `least`.

use llmd_epp_api::{LatencyPrediction, Prediction};

/// Ranges that are not larger are none.
const FLAT: f64 = 1e-9;

/// Which headroom is best.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strategy {
    Least,
    Most,
}

/// Sum to 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weights {
    pub(super) ttft: f64,
    pub(super) tpot: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Set {
    Positive,
    Idle,
    TpotMissed,
    TtftMissed,
    BothMissed,
}

fn set_of(prediction: Option<&Prediction>) -> Set {
    let Some(known) = prediction else {
        return Set::Positive;
    };
    match (known.ttft_headroom_ms < 0.0, known.tpot_headroom_ms < 0.0) {
        (false, false) => Set::Positive,
        _ if known.dispatched == 0 => Set::Idle,
        (false, true) => Set::TpotMissed,
        (true, false) => Set::TtftMissed,
        (true, true) => Set::BothMissed,
    }
}

/// Extremes of one dimension.
#[derive(Clone, Copy)]
struct Range {
    min: f64,
    max: f64,
}

impl Range {
    const NONE: Self = Self {
        min: f64::INFINITY,
        max: f64::NEG_INFINITY,
    };

    fn extend(&mut self, value: f64) {
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }

    fn is_flat(self) -> bool {
        self.max - self.min <= FLAT
    }

    fn scaled(self, value: f64) -> f64 {
        if self.is_flat() {
            0.5
        } else {
            (value - self.min) / (self.max - self.min)
        }
    }
}

/// At least one candidate has a prediction.
pub(super) fn score(
    weights: Weights,
    strategy: Strategy,
    predictions: &LatencyPrediction,
    candidates: &[u32],
    scores: &mut [f64],
) {
    let sets = candidates.iter().map(|index| set_of(predictions.of(*index)));
    let Some(chosen) = sets.min() else {
        return;
    };
    let strategy = if chosen == Set::Positive {
        strategy
    } else {
        Strategy::Least
    };
    let (mut ttft, mut tpot) = (Range::NONE, Range::NONE);
    for known in candidates.iter().filter_map(|index| predictions.of(*index)) {
        if set_of(Some(known)) == chosen {
            ttft.extend(known.ttft_headroom_ms.abs());
            tpot.extend(known.tpot_headroom_ms.abs());
        }
    }
    let weights = match (ttft.is_flat(), tpot.is_flat()) {
        (true, false) => Weights { ttft: 0.0, tpot: 1.0 },
        (false, true) => Weights { ttft: 1.0, tpot: 0.0 },
        _ => weights,
    };
    for (score, index) in scores.iter_mut().zip(candidates) {
        let prediction = predictions.of(*index);
        if set_of(prediction) != chosen {
            *score = 0.0;
            continue;
        }
        let combined = prediction.map_or(0.5, |known| {
            weights.ttft * ttft.scaled(known.ttft_headroom_ms.abs())
                + weights.tpot * tpot.scaled(known.tpot_headroom_ms.abs())
        });
        let share = match strategy {
            Strategy::Least => 1.0 - combined,
            Strategy::Most => combined,
        };
        *score = ((share * 100.0).trunc() + 1.0) / 100.0;
    }
}
