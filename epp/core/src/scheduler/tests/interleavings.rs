//! Every order in which the steps of a few requests can fall.
//!
//! A selection and its reservation are one step under one lock, so that these orders are all that threads can make of
//! them; [`super::a_concurrent_burst_of_equal_scores_spreads_evenly`] shows the lock itself with threads.

use llmd_epp_api::ResponseEnd;

use super::*;

#[derive(Clone, Copy, PartialEq)]
enum End {
    Complete,
    Aborted,
    /// Dropped before its answer began.
    Forgotten,
}

/// All ways to merge the steps of so many requests of three steps each.
fn orders(left: &mut [u8], order: &mut Vec<usize>, each: &mut impl FnMut(&[usize])) {
    if left.iter().all(|steps| *steps == 0) {
        return each(order);
    }
    for request in 0..left.len() {
        if left[request] > 0 {
            left[request] -= 1;
            order.push(request);
            orders(left, order, each);
            order.pop();
            left[request] += 1;
        }
    }
}

#[test]
fn load_is_booked_while_a_request_lives_and_picks_follow_it() {
    const ENDS: [End; 3] = [End::Complete, End::Aborted, End::Forgotten];
    let pool = Pool::of(2);
    let scheduler = default_scheduler(BuildEnv::detached());
    let prompts = ["first cold prompt", "second cold prompt", "third cold prompt"].map(request);
    let mut played = 0;
    for shift in 0..ENDS.len() {
        orders(&mut [3; 3], &mut Vec::new(), &mut |order| {
            played += 1;
            let mut alive: [Option<Decision>; 3] = [const { None }; 3];
            let mut steps = [0; 3];
            for &at in order {
                steps[at] += 1;
                let end = ENDS[(at + shift) % ENDS.len()];
                match (steps[at], &mut alive[at]) {
                    (1, slot) => {
                        let before = requests(&pool);
                        let decision = scheduler
                            .schedule(pool.now, &prompts[at], &pool.snapshot, None)
                            .unwrap();
                        let picked: usize = name(&decision)[1..].parse().unwrap();
                        // Prefixes of earlier rounds may hold a request where it was, for one request more.
                        assert!(
                            before[picked] <= before.iter().min().unwrap() + 1,
                            "{before:?}, and {picked} was picked"
                        );
                        *slot = Some(decision);
                    }
                    (2, Some(decision)) if end != End::Forgotten => decision.on_first_chunk(pool.now),
                    (2, slot) => *slot = None,
                    (_, slot) => {
                        if let Some(mut decision) = slot.take() {
                            match end {
                                End::Complete => {
                                    drop(decision.on_complete(pool.now, &ResponseEnd::default()));
                                }
                                _ => decision.on_aborted(pool.now, crate::Termination::ClientDisconnect),
                            }
                        }
                    }
                }
                let booked: u64 = requests(&pool).iter().sum();
                assert_eq!(booked, alive.iter().flatten().count() as u64, "{order:?}");
            }
        });
        assert_eq!(requests(&pool), [0, 0]);
    }
    assert_eq!(played, 3 * 1680);
}
