//! Blocks that stay after their request, for another engine.

use std::time::Duration;

use super::{Engine, Event, RequestId, Sequence};

impl Engine {
    /// Lengthens the lease of held blocks to `until`; false if it is over.
    pub fn extend_hold(&mut self, id: RequestId, until: Duration) -> bool {
        self.held.extend(id, until)
    }

    /// Frees held blocks; false if they are free already.
    pub fn release_hold(&mut self, id: RequestId) -> bool {
        self.held.release(id, &mut self.pool)
    }

    /// Keeps the blocks of a request whose answer goes on elsewhere.
    pub(super) fn hold_blocks(&mut self, sequence: &mut Sequence, now: Duration, events: &mut Vec<Event>) {
        let Some(hold) = sequence.request.hold.take() else {
            return;
        };
        let blocks = std::mem::take(&mut sequence.blocks);
        events.push(Event::Held {
            id: sequence.id,
            key: hold.key,
            blocks: blocks.clone(),
            tokens: sequence.computed,
        });
        self.held.insert(sequence.id, blocks, now + hold.lease);
    }
}
