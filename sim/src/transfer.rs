//! KV blocks that move between simulated engines: who may ask for which, how long they stay, how long it takes.
//!
//! ```text
//!  prefill engine                                     decode engine
//!  request ends, blocks held ◀── claim ── side channel ── request with `do_remote_prefill`
//!        lease runs           ◀── beat ──                  waits its transfer time, computes the rest
//!        blocks free          ◀── done, or the connection ends
//! ```
//!
//! The fields in requests and answers are those of vLLM's connectors; the bytes between the engines are ours:
//! there is no KV to move, only the right to it.

pub mod config;
pub mod encodings;
pub mod give;
pub mod params;
pub mod peer;
pub mod take;
pub mod wire;

pub use config::{Connector, KvTransferConfig, LoadFailurePolicy, Role, TransferTime};
pub use give::SideChannel;
pub use take::{Claim, ClaimError};
