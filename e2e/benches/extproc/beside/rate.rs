//! The highest rate of 220 KB requests that a subject sustains.

use std::time::Duration;

use serde_json::Value;

use super::subject::{Subject, Work};

/// Rates that are tried, in requests per second; the last one is where we stop looking.
const LADDER: [u32; 14] = [10, 20, 30, 45, 65, 90, 130, 180, 250, 350, 500, 700, 1000, 1400];
const HELD_FOR: Duration = Duration::from_secs(3);
/// Most added P99 in milliseconds at a rate that counts as sustained.
const MOST_ADDED: f64 = 100.0;
/// A neighbour's burst is no limit of the subject.
const TRIES: usize = 2;

/// Climbs with each subject until its added P99 is too long.
pub(super) async fn row(none: &Subject, subjects: &mut [Subject], work: &Work) -> Value {
    let mut without = Vec::new();
    for rate in LADDER {
        let p99 = none.large_p99(work, rate, HELD_FOR).await;
        if p99 >= MOST_ADDED {
            break;
        }
        without.push((rate, p99));
    }
    let mut highest = Vec::new();
    for subject in subjects {
        highest.push(
            subject
                .alone(async |subject| climb(subject, &without, work).await)
                .await,
        );
    }
    let top = without.last().map_or(0, |(rate, _)| *rate);
    let bound = |rate: u32| if rate == top { "≥ " } else { "" };
    let cells = highest
        .iter()
        .map(|rate| format!("{}{rate} requests/s", bound(*rate)));
    let [.., ours, theirs] = highest[..] else {
        unreachable!("two pickers at least")
    };
    let how = format!(
        "highest of the rates tried with added P99 below {MOST_ADDED} ms, {} s each; without ext-proc this machine \
         holds {top}",
        HELD_FOR.as_secs()
    );
    let ratio = format!(
        "{}{}",
        bound(ours),
        super::times(f64::from(ours) / f64::from(theirs))
    );
    super::line("sustained rate of 220 KB requests", cells.collect(), &ratio, &how)
}

/// The last rate before the first that is not sustained; 0 when none is.
async fn climb(subject: &Subject, without: &[(u32, f64)], work: &Work) -> u32 {
    let mut sustained = 0;
    for (rate, without) in without {
        let mut is_held = false;
        for _ in 0..TRIES {
            let p99 = subject.large_p99(work, *rate, HELD_FOR).await;
            is_held = p99 - without < MOST_ADDED;
            if is_held {
                break;
            }
        }
        if !is_held {
            break;
        }
        sustained = *rate;
    }
    sustained
}
