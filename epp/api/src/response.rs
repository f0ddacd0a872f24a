//! What a decision leaves behind until its response is done.

use std::time::Instant;

/// Follows one response. Dropping the hook ends whatever it still holds, exactly once, on any path.
pub trait ResponseHook: Send + Sync + std::fmt::Debug {
    /// The first response chunk arrived.
    fn on_first_chunk(&mut self, now: Instant);

    /// The response ended normally.
    fn on_complete(&mut self, now: Instant);
}
