//! What the log says where nothing can prefill.

use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::{ALWAYS, Pool, decide, pool, scheduler};

/// Keeps what is said at `info` and above.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Visit for Lines {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.0.lock().unwrap().push(format!("{value:?}"));
        }
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event()
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut self.clone());
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[test]
fn the_log_says_once_that_nothing_can_prefill_and_once_that_it_is_over() {
    let (scheduler, alone) = (scheduler(ALWAYS), Pool::of(1).label(0, "llm-d.ai/role", "decode"));
    let lines = Lines::default();
    tracing::subscriber::with_default(lines.clone(), || {
        for pool in [pool(), alone, pool()] {
            for _ in 0..3 {
                decide(&scheduler, &pool);
            }
        }
    });
    let said = lines.0.lock().unwrap();
    assert_eq!(
        *said,
        [
            "no endpoint can prefill; decode endpoints do it themselves",
            "prefill happens on endpoints of its own again"
        ]
    );
}
