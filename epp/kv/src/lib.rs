//! What engines hold in their KV caches, as far as routing can know it.
//!
//! Takes in: prompts (text bytes or token ids) and where requests were sent.
//! Holds: the approximate prefix index: block hash → slots of the endpoints that computed it, with
//! one recency list per endpoint that bounds it.
//! Gives out: matched blocks per endpoint slot, and the events by which engines tell of their caches.
//!
//! ```text
//!  prompt ─▶ hash_prompt ─▶ h0 h1 h2 … ─▶ PrefixIndex::lookup ─▶ Matches (blocks per slot)
//!                                └──── after the pick ─▶ PrefixIndex::insert(slot)
//! ```

pub mod events;
pub mod hash;
pub mod index;

pub use hash::{BYTES_PER_TOKEN, PromptBlocks, hash_prompt};
pub use index::{Matches, PrefixIndex};
