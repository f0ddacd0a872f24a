//! Each set, both strategies, and what decides without predictions.

use serde_json::{Value, json};

use llmd_epp_api::Prediction;

use super::*;
use crate::plugins::testing::{Pool, Prepared};

/// (headroom of the first token, headroom per output token, running requests of ours).
type Known = (f64, f64, u32);

fn scores(parameters: Value, known: &[Option<Known>]) -> Vec<f64> {
    let predicted = known.iter().map(|known| {
        known.map(|(ttft_headroom_ms, tpot_headroom_ms, dispatched)| Prediction {
            ttft_headroom_ms,
            tpot_headroom_ms,
            dispatched,
            ..Prediction::default()
        })
    });
    let prepared = Prepared::new(&PLUGIN, &parameters).predicted(predicted.collect());
    prepared.scores(&Pool::of(known.len()))
}

#[test]
fn the_positive_set_packs_or_spreads_and_the_rest_gets_nothing() {
    // n of the first token: 0, 0.5, 1; of output tokens: 1, 0, 0.5.
    let known = [
        Some((100.0, 30.0, 1)),
        Some((200.0, 10.0, 1)),
        Some((300.0, 20.0, 1)),
        Some((-1.0, 20.0, 0)),
    ];
    // Combined 0.2, 0.4, 0.9.
    assert_eq!(scores(json!({}), &known), [0.81, 0.61, 0.1, 0.0]);
    let most = json!({"headroomSelectionStrategy": "most"});
    assert_eq!(scores(most, &known), [0.21, 0.41, 0.91, 0.0]);
    let unknown = json!({"headroomSelectionStrategy": "composite-most"});
    assert_eq!(scores(unknown, &known), scores(json!({}), &known));
}

#[test]
fn a_headroom_without_a_range_gives_its_weight_away() {
    let known = [Some((100.0, 0.0, 1)), Some((50.0, 0.0, 1)), Some((0.0, 0.0, 1))];
    assert_eq!(scores(json!({}), &known), [0.01, 0.51, 1.01]);
    // Neither has one.
    let equal = [Some((7.0, 7.0, 1)), Some((7.0, 7.0, 1))];
    assert_eq!(scores(json!({}), &equal), [0.51, 0.51]);
}

#[test]
fn without_a_positive_endpoint_an_idle_one_is_chosen() {
    let most = json!({"headroomSelectionStrategy": "most"});
    let known = [
        Some((-100.0, 0.0, 0)),
        Some((-300.0, 0.0, 0)),
        Some((-1.0, 0.0, 2)),
    ];
    assert_eq!(scores(most, &known), [1.01, 0.01, 0.0]);
}

#[test]
fn the_smallest_kind_of_miss_is_chosen() {
    let (tpot, ttft, both) = (Some((5.0, -1.0, 1)), Some((-5.0, 1.0, 1)), Some((-5.0, -1.0, 1)));
    assert_eq!(scores(json!({}), &[both, ttft, tpot]), [0.0, 0.0, 0.51]);
    assert_eq!(scores(json!({}), &[both, ttft]), [0.0, 0.51]);
    assert_eq!(scores(json!({}), &[both, both]), [0.51, 0.51]);
}

#[test]
fn an_endpoint_without_a_prediction_stands_in_the_middle() {
    let known = [
        Some((100.0, 0.0, 1)),
        None,
        Some((0.0, 0.0, 1)),
        Some((-1.0, 0.0, 0)),
    ];
    assert_eq!(scores(json!({}), &known), [0.01, 0.51, 1.01, 0.0]);
}

fn composite(parameters: Value, pool: &Pool, matched: &[u32]) -> Vec<f64> {
    let prepared = Prepared::new(&PLUGIN, &parameters).matched(matched.to_vec(), 10);
    prepared.scores(pool)
}

#[test]
fn without_predictions_cache_queue_and_prefix_decide() {
    let pool = Pool::of(3).kv_usage(0, 0.5).waiting(1, 4).waiting(2, 1);
    // (0.5 + 1 + 0.6)/3, (1 + 0 + 0)/3, (1 + 0.75 + 0)/3.
    assert_eq!(composite(json!({}), &pool, &[6, 0, 0]), [0.7, 0.33, 0.58]);
    let only_queue = json!({"compositeKVWeight": 0, "compositePrefixWeight": 0});
    assert_eq!(composite(only_queue, &pool, &[6, 0, 0]), [1.0, 0.0, 0.75]);
    let nothing = json!({"compositeKVWeight": 0, "compositeQueueWeight": 0, "compositePrefixWeight": 0});
    assert_eq!(composite(nothing, &pool, &[6, 0, 0]), [0.5, 1.0, 1.0]);
    assert_eq!(composite(json!({}), &Pool::of(1), &[0]), [0.67]);
}
