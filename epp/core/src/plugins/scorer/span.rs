//! Min-max scoring of a number per endpoint, lower is better.

use llmd_epp_api::{Snapshot, Timing};

/// `(max − value)/(max − min)` over the candidates; all equal gives 1.
pub(super) fn lower_is_better(candidates: &[u32], value: impl Fn(u32) -> u32, scores: &mut [f64]) {
    let (mut min, mut max) = (u32::MAX, 0);
    for index in candidates {
        let value = value(*index);
        min = min.min(value);
        max = max.max(value);
    }
    if min >= max {
        scores.fill(1.0);
        return;
    }
    let span = f64::from(max - min);
    for (score, index) in scores.iter_mut().zip(candidates) {
        // A request may end between the two looks.
        *score = f64::from(max.saturating_sub(value(*index))) / span;
    }
}

/// Requests at endpoint `index`: as scraped, or those in flight through this process where they are
/// more. A scrape is up to an interval old, and a burst is over before the next one.
pub(super) fn requests(timing: Timing, scraped: &[u32], snapshot: &Snapshot, index: u32) -> u32 {
    let scraped = scraped[index as usize];
    match timing {
        Timing::Upstream => scraped,
        Timing::Live => {
            let own = snapshot.endpoints[index as usize].slot().requests();
            scraped.max(u32::try_from(own).unwrap_or(u32::MAX))
        }
    }
}
