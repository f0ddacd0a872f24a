//! Leader election by a Lease, compatible with client-go's: of several replicas one acts.
//!
//! Takes in: a client, the Lease's name, who we are.
//! Holds: one task that tries, then renews; what the Lease said when it last changed.
//! Gives out: whether this process leads, that it began to, and that it does not any more.
//!
//! ```text
//!  candidate ──lease is free or expired──▶ leader ──renews every 2 s──▶ leader
//!      ▲ tries every 2 s                     └─ 10 s without renewal ─▶ lost: the process should end
//! ```

mod candidate;
mod leadership;
mod timings;

pub use leadership::{Leadership, start};
pub use timings::Timings;
