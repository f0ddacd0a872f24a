//! Bursts with one prefix, under upstream's default plugins and weights (queue 2, KV use 2, prefix 3).

use llmd_epp_api::Timing;

use super::*;

const ENDPOINTS: usize = 8;
const BURST: u32 = 256;

/// Requests that all arrive before any answer begins; returns how many each endpoint got.
fn burst(scheduler: &Scheduler, pool: &Pool, prompt: &str) -> (Vec<u64>, Vec<Decision>) {
    let (next, held) = (AtomicU32::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while next.fetch_add(1, Ordering::Relaxed) < BURST {
                    let decision = scheduler.schedule(pool.now, &request(prompt), &pool.snapshot, None);
                    held.lock().unwrap().push(decision.unwrap());
                }
            });
        }
    });
    (requests(pool), held.into_inner().unwrap())
}

#[test]
fn a_burst_with_one_cold_prefix_spreads() {
    let pool = Pool::of(ENDPOINTS);
    let scheduler = default_scheduler(BuildEnv::detached());
    let (got, held) = burst(&scheduler, &pool, &"one cold prefix for all of them ".repeat(100));
    assert_eq!(got, [u64::from(BURST) / ENDPOINTS as u64; ENDPOINTS]);
    drop(held);

    // With upstream's timing the second request already follows the first.
    let env = BuildEnv {
        timing: Timing::Upstream,
        ..BuildEnv::detached()
    };
    let (scheduler, prompt) = (
        default_scheduler(env),
        "one cold prefix for all of them ".repeat(100),
    );
    let decide = |_| {
        scheduler
            .schedule(pool.now, &request(&prompt), &pool.snapshot, None)
            .unwrap()
    };
    let held: Vec<Decision> = (0..BURST).map(decide).collect();
    assert!(
        requests(&pool).contains(&u64::from(BURST)),
        "{:?}",
        requests(&pool)
    );
    drop(held);
}

/// An endpoint with share r of the prefix keeps a request while `3·r > 2·Δqueue + 2·Δkv`, where Δqueue is its
/// distance to the shortest queue over the span of all (0..=1) and Δkv its additional KV use.
#[test]
fn a_warm_prefix_holds_until_the_load_outweighs_it() {
    let prompt = "a prefix that fills some blocks ".repeat(80);
    let warm = |pool: &Pool, prompt: &str| {
        let scheduler = default_scheduler(BuildEnv::detached());
        drop(begun(&scheduler, pool, &request(prompt), Some(&[0])));
        scheduler
    };
    let goes_to = |pool: &Pool, scheduler: &Scheduler, prompt: &str| {
        let decision = scheduler
            .schedule(pool.now, &request(prompt), &pool.snapshot, None)
            .unwrap();
        name(&decision).to_owned()
    };
    // All of the prefix: 3 against 2 for the longest queue.
    let queued = Pool::of(3).waiting(0, 50);
    assert_eq!(goes_to(&queued, &warm(&queued, &prompt), &prompt), "e0");
    // 3 against 2 + 2·0.6.
    let full = Pool::of(3).waiting(0, 50).kv_usage(0, 0.6);
    assert_ne!(goes_to(&full, &warm(&full, &prompt), &prompt), "e0");
    // 3 against 2 + 2·0.4.
    let filling = Pool::of(3).waiting(0, 50).kv_usage(0, 0.4);
    assert_eq!(goes_to(&filling, &warm(&filling, &prompt), &prompt), "e0");
    // Half of the prefix: 1.5 against 2.
    let longer = format!("{prompt}{}", "and as much again of other text ".repeat(80));
    assert_ne!(goes_to(&queued, &warm(&queued, &prompt), &longer), "e0");
    let idle = Pool::of(3);
    assert_eq!(goes_to(&idle, &warm(&idle, &prompt), &longer), "e0");
}

#[test]
fn an_answer_with_an_error_or_none_at_all_leaves_no_prefix() {
    let pool = Pool::of(2);
    let scheduler = default_scheduler(BuildEnv::detached());
    let mut conditional = request("hello");
    conditional.headers.push("prefer", b"if-available");
    let is_known = || {
        scheduler
            .schedule(pool.now, &conditional, &pool.snapshot, None)
            .is_ok()
    };
    let decide = || {
        scheduler
            .schedule(pool.now, &request("hello"), &pool.snapshot, None)
            .unwrap()
    };
    drop(decide());
    assert!(!is_known(), "nothing was computed");
    let mut failed = decide();
    failed.on_headers(&llmd_epp_api::ResponseHead::new(503, None));
    failed.on_first_chunk(pool.now);
    failed.on_complete(pool.now, &ResponseEnd::default());
    assert!(!is_known(), "the engine refused");
    let mut unseen = decide();
    unseen.on_complete(pool.now, &ResponseEnd::default());
    assert!(is_known(), "complete although no chunk was shown");
}
