//! Min-max scoring of a snapshot column, lower is better.

/// `(max − value)/(max − min)` over the candidates; all equal gives 1.
pub(super) fn lower_is_better(column: &[u32], candidates: &[u32], scores: &mut [f64]) {
    let (mut min, mut max) = (u32::MAX, 0);
    for index in candidates {
        let value = column[*index as usize];
        min = min.min(value);
        max = max.max(value);
    }
    if min >= max {
        scores.fill(1.0);
        return;
    }
    let span = f64::from(max - min);
    for (score, index) in scores.iter_mut().zip(candidates) {
        *score = f64::from(max - column[*index as usize]) / span;
    }
}
