mod transfers;

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::engine::{Latency, Overrides, RequestSummary, StepModel};

const CONFIG: EngineConfig = EngineConfig {
    blocks: 33,
    block_size: 4,
    max_sequences: 4,
    max_batched_tokens: 32,
    prefix_caching: true,
    max_adapters: 1,
};

/// Each step takes 1 s and 0.1 s per prompt token.
const SLOW: StepModel = StepModel {
    base: 1.0,
    prefill_token: 0.1,
    prefill_pair: 0.0,
    decode_sequence: 0.0,
    decode_context: 0.0,
    request: 0.0,
    request_token: 0.0,
    transit: 0.0,
};

fn engine(config: EngineConfig) -> Engine {
    Engine::new(config, Timing::new(SLOW, Overrides::default(), 0.0, 0))
}

fn request(prompt: impl IntoIterator<Item = u32>, output: usize) -> EngineRequest {
    EngineRequest {
        prompt: prompt.into_iter().collect(),
        output: (0..output as u32).map(|i| 1_000_000 + i).collect(),
        finish: FinishReason::Length,
        adapter: None,
        salt: None,
        slowdown: 1.0,
        import: None,
        hold: None,
    }
}

/// Polls exactly when there is something to do, until nothing is left.
fn run(engine: &mut Engine) -> Vec<(Duration, Event)> {
    let mut log = Vec::new();
    let mut events = Vec::new();
    let mut now = Duration::ZERO;
    engine.poll(now, &mut events);
    while let Some(next) = engine.next() {
        now = next;
        engine.poll(now, &mut events);
        log.extend(events.drain(..).map(|event| (now, event)));
    }
    log
}

fn seconds(log: &[(Duration, Event)], id: RequestId) -> Vec<f64> {
    log.iter()
        .filter(|(_, event)| match event {
            Event::FirstToken { id: of, .. } | Event::Token { id: of, .. } => *of == id,
            _ => false,
        })
        .map(|(at, _)| at.as_secs_f64())
        .collect()
}

fn summary(log: &[(Duration, Event)], wanted: RequestId) -> RequestSummary {
    log.iter()
        .find_map(|(_, event)| match event {
            Event::Finished { id, summary } if *id == wanted => Some(*summary),
            _ => None,
        })
        .unwrap()
}

#[test]
fn one_request_takes_its_prefill_and_a_step_per_token() {
    let mut engine = engine(CONFIG);
    let id = engine.submit(Duration::ZERO, request(0..10, 3)).unwrap();
    let log = run(&mut engine);
    assert_eq!(seconds(&log, id), [2.0, 3.0, 4.0]);
    let summary = summary(&log, id);
    assert_eq!(
        (summary.prefill, summary.decode),
        (Duration::from_secs(2), Duration::from_secs(2))
    );
    assert_eq!(engine.blocks().used(), 0);
    assert_eq!(engine.counters().generated_tokens, 3);
}

#[test]
fn a_long_prompt_is_computed_in_chunks_beside_decodes() {
    let mut engine = engine(CONFIG);
    let short = engine.submit(Duration::ZERO, request(0..2, 4)).unwrap();
    let long = engine.submit(Duration::ZERO, request(100..160, 1)).unwrap();
    let log = run(&mut engine);
    // Steps of 2+30, 1+30 (1 prompt token left of the budget goes to the decode).
    assert_eq!(seconds(&log, short)[..2], [4.2, 8.2]);
    assert_eq!(seconds(&log, long), [8.2]);
    let steps: Vec<_> = log
        .iter()
        .filter_map(|(_, event)| {
            if let Event::Step { tokens } = event {
                Some(*tokens)
            } else {
                None
            }
        })
        .collect();
    assert_eq!(steps, [32, 31, 1, 1]);
}

#[test]
fn requests_beyond_the_slots_wait_in_order() {
    let mut engine = super::tests::engine(EngineConfig {
        max_sequences: 1,
        ..CONFIG
    });
    for start in [0, 100, 200] {
        engine
            .submit(Duration::ZERO, request(start..start + 10, 2))
            .unwrap();
    }
    engine.poll(Duration::ZERO, &mut Vec::new());
    assert_eq!((engine.running(), engine.waiting()), (1, 2));
    let log = run(&mut engine);
    assert_eq!(
        [0, 1, 2].map(|id| seconds(&log, id)[0]).to_vec(),
        vec![2.0, 5.0, 8.0]
    );
    assert_eq!(summary(&log, 2).queue, Duration::from_secs(6));
}

#[test]
fn a_shared_prefix_is_computed_once_even_within_one_step() {
    let mut engine = engine(CONFIG);
    let a = engine.submit(Duration::ZERO, request(0..14, 1)).unwrap();
    let b = engine.submit(Duration::ZERO, request(0..14, 1)).unwrap();
    let log = run(&mut engine);
    assert_eq!(
        (summary(&log, a).cached_tokens, summary(&log, b).cached_tokens),
        (0, 12)
    );
    // 14 and 2 prompt tokens in one step.
    assert_eq!(seconds(&log, b), [2.6]);
    assert_eq!(
        (engine.counters().prefix_queries, engine.counters().prefix_hits),
        (28, 12)
    );
}

#[test]
fn the_last_prompt_token_is_computed_even_when_all_blocks_are_cached() {
    let mut engine = engine(CONFIG);
    engine.submit(Duration::ZERO, request(0..16, 1)).unwrap();
    run(&mut engine);
    let again = engine.submit(Duration::from_secs(10), request(0..16, 1)).unwrap();
    let log = run(&mut engine);
    assert_eq!(summary(&log, again).cached_tokens, 12);
}

#[test]
fn generated_tokens_are_cached_for_the_next_turn() {
    let mut engine = engine(CONFIG);
    engine.submit(Duration::ZERO, request(0..6, 7)).unwrap();
    run(&mut engine);
    let turn = (0..6).chain((0..7).map(|i| 1_000_000 + i)).chain([50, 51, 52]);
    let next = engine.submit(Duration::from_secs(100), request(turn, 1)).unwrap();
    // 6 prompt tokens and 6 of 7 generated ones were computed: three full blocks.
    assert_eq!(summary(&run(&mut engine), next).cached_tokens, 12);
}

#[test]
fn salts_and_adapters_do_not_share_and_a_second_adapter_waits() {
    let mut engine = engine(CONFIG);
    let salted = |salt: Option<&str>, adapter: Option<&str>| EngineRequest {
        salt: salt.map(Arc::from),
        adapter: adapter.map(Arc::from),
        ..request(0..12, 2)
    };
    for (salt, adapter) in [
        (None, None),
        (Some("s"), None),
        (None, Some("a")),
        (None, Some("b")),
    ] {
        engine.submit(Duration::ZERO, salted(salt, adapter)).unwrap();
    }
    engine.poll(Duration::ZERO, &mut Vec::new());
    assert_eq!(engine.running_adapters(), ["a".into()]);
    assert_eq!(engine.waiting_adapters(), ["b".into()]);
    let log = run(&mut engine);
    assert_eq!(engine.counters().prefix_hits, 0);
    assert!(summary(&log, 3).queue > Duration::ZERO);
}

#[test]
fn running_out_of_blocks_preempts_the_youngest_which_ends_all_the_same() {
    // 12 usable blocks; two sequences of 20 tokens grow to 10 blocks each.
    let config = EngineConfig {
        blocks: 13,
        max_batched_tokens: 64,
        ..CONFIG
    };
    let mut engine = engine(config);
    let old = engine.submit(Duration::ZERO, request(0..20, 20)).unwrap();
    let young = engine.submit(Duration::ZERO, request(100..120, 20)).unwrap();
    let log = run(&mut engine);
    assert_eq!(summary(&log, old).preemptions, 0);
    assert!(summary(&log, young).preemptions >= 1);
    assert_eq!(summary(&log, young).generated_tokens, 20);
    assert_eq!(
        engine.counters().prefix_queries,
        40,
        "a resumed request is not counted again"
    );
    assert_eq!(engine.blocks().used(), 0);
}

#[test]
fn what_can_never_run_is_refused() {
    let mut engine = engine(CONFIG);
    assert_eq!(
        engine.submit(Duration::ZERO, request(0..128, 1)),
        Err(SubmitError::TooLong {
            tokens: 129,
            capacity: 128
        })
    );
    assert_eq!(
        engine.submit(Duration::ZERO, request([], 1)),
        Err(SubmitError::Empty)
    );
    assert_eq!(
        engine.submit(Duration::ZERO, request([1], 0)),
        Err(SubmitError::Empty)
    );
    assert_eq!(engine.next(), None);
}

#[test]
fn the_front_end_works_on_one_request_at_a_time() {
    let model = StepModel {
        request: 1.0,
        request_token: 0.5,
        ..SLOW
    };
    let mut engine = Engine::new(CONFIG, Timing::new(model, Overrides::default(), 0.0, 0));
    let a = engine.submit(Duration::ZERO, request(0..2, 1)).unwrap();
    let b = engine.submit(Duration::ZERO, request(10..12, 1)).unwrap();
    let log = run(&mut engine);
    assert_eq!((seconds(&log, a), seconds(&log, b)), (vec![3.2], vec![5.2]));
}

#[test]
fn overridden_latencies_hold_per_request_and_do_not_block_each_other() {
    let fixed = |ms| {
        Some(Latency {
            mean: Duration::from_millis(ms),
            deviation: Duration::ZERO,
        })
    };
    let overrides = Overrides {
        first_token: fixed(100),
        next_token: fixed(10),
        under_load: 1.0,
        ..Overrides::default()
    };
    let mut engine = Engine::new(CONFIG, Timing::new(SLOW, overrides, 0.0, 0));
    let a = engine.submit(Duration::ZERO, request(0..60, 3)).unwrap();
    let b = engine
        .submit(
            Duration::from_millis(5),
            EngineRequest {
                slowdown: 2.0,
                ..request(0..30, 2)
            },
        )
        .unwrap();
    let log = run(&mut engine);
    assert_eq!(seconds(&log, a), [0.1, 0.11, 0.12]);
    assert_eq!(seconds(&log, b), [0.205, 0.225]);
}

#[test]
fn late_polls_do_not_add_up() {
    let fixed = |ms| {
        Some(Latency {
            mean: Duration::from_millis(ms),
            deviation: Duration::ZERO,
        })
    };
    let overrides = Overrides {
        first_token: fixed(10),
        next_token: fixed(10),
        ..Overrides::default()
    };
    for timing in [
        Timing::new(SLOW, overrides, 0.0, 0),
        Timing::new(
            StepModel {
                base: 0.01,
                prefill_token: 0.0,
                ..SLOW
            },
            Overrides::default(),
            0.0,
            0,
        ),
    ] {
        let mut engine = Engine::new(CONFIG, timing);
        let mut events = Vec::new();
        engine.submit(Duration::ZERO, request(0..4, 20)).unwrap();
        let mut polls = 0;
        while let Some(next) = engine.next() {
            engine.poll(next + Duration::from_millis(3), &mut events);
            polls += 1;
        }
        let end = events.iter().find_map(|event| {
            if let Event::Finished { summary, .. } = event {
                Some(summary.end_to_end)
            } else {
                None
            }
        });
        assert_eq!(end, Some(Duration::from_millis(200)), "after {polls} late polls");
    }
}

#[test]
fn an_aborted_request_leaves_no_trace_in_the_blocks() {
    let mut engine = engine(CONFIG);
    let mut events = Vec::new();
    let running = engine.submit(Duration::ZERO, request(0..10, 9)).unwrap();
    engine.poll(Duration::from_secs(2), &mut events);
    assert_eq!(engine.blocks().used(), 3);
    events.clear();
    assert!(engine.abort(Duration::from_secs(3), running, &mut events));
    assert!(!engine.abort(Duration::from_secs(3), running, &mut events));
    assert!(matches!(
        events[..],
        [Event::Finished {
            summary: RequestSummary {
                finish: FinishReason::Abort,
                ..
            },
            ..
        }]
    ));
    assert_eq!((engine.blocks().used(), engine.unfinished()), (0, 0));
    run(&mut engine);
}

#[derive(Clone, Debug)]
struct Arrival {
    at: u64,
    prefix: usize,
    own: usize,
    output: usize,
    abort: bool,
}

fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
    let arrival = (
        0..20_000u64,
        0..40usize,
        1..40usize,
        1..30usize,
        prop::bool::weighted(0.1),
    );
    let arrival = arrival.prop_map(|(at, prefix, own, output, abort)| Arrival {
        at,
        prefix,
        own,
        output,
        abort,
    });
    prop::collection::vec(arrival, 1..40).prop_map(|mut all| {
        all.sort_by_key(|arrival| arrival.at);
        all
    })
}

/// Feeds arrivals, checking conservation after every poll; returns everything that happened.
fn simulate(arrivals: &[Arrival], config: EngineConfig, seed: u64) -> Vec<(Duration, Event)> {
    let mut engine = Engine::new(config, Timing::new(SLOW, Overrides::default(), 0.3, seed));
    let (mut log, mut events, mut open) = (Vec::new(), Vec::new(), 0usize);
    let mut pending = arrivals.iter().enumerate().peekable();
    loop {
        let arrival = pending
            .peek()
            .map(|(_, arrival)| Duration::from_millis(arrival.at));
        let now = match (engine.next(), arrival) {
            (Some(a), Some(b)) => a.min(b),
            (Some(a), None) | (None, Some(a)) => a,
            (None, None) => break,
        };
        while let Some((index, arrival)) =
            pending.next_if(|(_, arrival)| Duration::from_millis(arrival.at) <= now)
        {
            let own = (0..arrival.own as u32).map(|i| 1000 + 100 * index as u32 + i);
            let id = engine
                .submit(
                    now,
                    request((0..arrival.prefix as u32).chain(own), arrival.output),
                )
                .unwrap();
            open += 1;
            if arrival.abort {
                engine.poll(now, &mut events);
                engine.abort(now, id, &mut events);
            }
        }
        engine.poll(now, &mut events);
        open -= events
            .iter()
            .filter(|event| matches!(event, Event::Finished { .. }))
            .count();
        assert_eq!(open, engine.unfinished(), "no request is lost or counted twice");
        assert_eq!(
            engine.blocks().used() + engine.blocks().free(),
            engine.blocks().usable()
        );
        assert!(engine.running() <= config.max_sequences);
        if engine.unfinished() == 0 {
            assert_eq!(engine.blocks().used(), 0, "blocks outlive their requests");
        }
        log.extend(events.drain(..).map(|event| (now, event)));
    }
    log
}

proptest! {
    #[test]
    fn no_request_and_no_block_is_lost(arrivals in arrivals(), blocks in 29..60u32, prefix_caching: bool, seed: u64) {
        let config = EngineConfig { blocks, prefix_caching, ..CONFIG };
        let log = simulate(&arrivals, config, seed);
        for (id, arrival) in arrivals.iter().enumerate() {
            let summary = summary(&log, id as u64);
            if !arrival.abort {
                prop_assert_eq!(summary.generated_tokens, arrival.output);
                prop_assert_eq!(seconds(&log, id as u64).len(), arrival.output);
            }
            prop_assert!(summary.cached_tokens < arrival.prefix + arrival.own);
            prop_assert!(prefix_caching || summary.cached_tokens == 0);
        }
        let within_budget = |tokens: &u64| (1..=32).contains(tokens);
        let steps = log.iter().filter_map(|(_, event)| if let Event::Step { tokens } = event { Some(tokens) } else { None });
        prop_assert!(steps.into_iter().all(within_budget));
    }

    #[test]
    fn the_same_seed_gives_the_same_run(arrivals in arrivals(), seed: u64) {
        prop_assert_eq!(simulate(&arrivals, CONFIG, seed), simulate(&arrivals, CONFIG, seed));
    }
}
