//! Blocks that come from elsewhere, and those that stay for others.

use super::*;
use crate::engine::{Hold, Import};

#[test]
fn held_blocks_are_used_until_their_lease_is_over_and_requests_wait_for_them() {
    let mut engine = engine(CONFIG);
    let hold = Some(Hold {
        key: "a".into(),
        lease: Duration::from_secs(50),
    });
    // 25 of 32 blocks, computed in several steps.
    let a = engine
        .submit(
            Duration::ZERO,
            EngineRequest {
                hold,
                ..request(0..100, 1)
            },
        )
        .unwrap();
    let b = engine
        .submit(Duration::from_secs(40), request(500..540, 1))
        .unwrap();
    let log = run(&mut engine);
    let at = |wanted: fn(&Event) -> bool| log.iter().find(|(_, event)| wanted(event)).unwrap().0;
    let held = at(|event| matches!(event, Event::Held { blocks, tokens: 100, .. } if blocks.len() == 25));
    let expired = at(|event| matches!(event, Event::Expired { .. }));
    assert_eq!(expired, held + Duration::from_secs(50));
    assert_eq!(summary(&log, a).finish, FinishReason::Length);
    assert!(
        seconds(&log, b)[0] > expired.as_secs_f64(),
        "10 blocks were not free before"
    );
    assert_eq!(engine.blocks().used(), 0);
}

#[test]
fn imported_tokens_take_their_time_and_only_the_rest_is_computed() {
    let mut engine = engine(CONFIG);
    let import = Some(Import {
        tokens: 20,
        wait: Duration::from_secs(5),
    });
    let all = engine
        .submit(
            Duration::ZERO,
            EngineRequest {
                import,
                ..request(0..20, 2)
            },
        )
        .unwrap();
    let log = run(&mut engine);
    // 5 s of transfer, a step of one token (1.1 s), a step of decoding.
    assert_eq!(seconds(&log, all), [6.1, 7.1]);
    assert_eq!(
        (
            summary(&log, all).cached_tokens,
            summary(&log, all).imported_tokens
        ),
        (19, 19)
    );
    let again = engine
        .submit(Duration::from_secs(100), request(0..20, 1))
        .unwrap();
    let log = run(&mut engine);
    assert_eq!(summary(&log, again).cached_tokens, 16, "what was read is shared");
    assert_eq!(engine.counters().external_hits, 19);
}
