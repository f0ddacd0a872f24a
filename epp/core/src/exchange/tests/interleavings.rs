//! Any order of calls, well-behaved or not.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Event {
    Chunk(usize),
    End { bad_subset: bool },
    Reroute,
    Settle,
    Headers(u16),
    Response { len: usize, end: bool },
    Finish(Termination),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0..BODY.len()).prop_map(Event::Chunk),
        4 => any::<bool>().prop_map(|bad| Event::End { bad_subset: bad }),
        1 => Just(Event::Reroute),
        1 => Just(Event::Settle),
        2 => prop_oneof![Just(200u16), Just(500u16)].prop_map(Event::Headers),
        4 => (0usize..40, any::<bool>()).prop_map(|(len, end)| Event::Response { len, end }),
        1 => prop_oneof![
            Just(Termination::Complete),
            Just(Termination::ClientDisconnect),
            Just(Termination::Error)
        ]
        .prop_map(Event::Finish),
    ]
}

proptest! {
    #[test]
    fn load_is_released_exactly_once_on_any_exit_path(
        is_whole in any::<bool>(),
        events in proptest::collection::vec(event(), 0..24),
    ) {
        let world = world(2);
        let mut exchange = world.open(&[CHAT]);
        if is_whole {
            exchange.on_request_chunk(BODY).expect("scanned");
        }
        let mut out = Vec::new();
        let mut is_finished = false;
        for event in events {
            match event {
                Event::Chunk(len) => drop(exchange.on_request_chunk(&BODY[..len])),
                Event::End { bad_subset } => {
                    let subset = bad_subset.then(Subset::default);
                    drop(exchange.on_request_end(world.now, &world.snapshot, &Hints { subset }));
                }
                Event::Reroute => {
                    let exclude = &world.snapshot.endpoints[..1];
                    drop(exchange.reroute(world.now, &world.snapshot, &Hints::default(), exclude));
                }
                Event::Settle => exchange.settle(),
                Event::Headers(status) => drop(exchange.on_response_headers(world.now, &ResponseHead::new(status, None))),
                Event::Response { len, end } => {
                    exchange.on_response_chunk(world.now, Bytes::from(vec![b'x'; len]), end, &mut out);
                }
                Event::Finish(cause) => {
                    exchange.finish(world.now, cause);
                    is_finished = true;
                }
            }
            let (requests, _) = world.load();
            prop_assert_eq!(requests, u64::from(exchange.is_running()));
            prop_assert!(!(is_finished && requests > 0));
        }
        drop(exchange);
        prop_assert_eq!(world.load(), (0, 0));
        prop_assert_eq!(world.metric("llm_d_epp_request_running", &[]), 0.0);
    }
}
