//! The engine: a vLLM-v1-shaped continuous-batching scheduler with paged KV blocks, driven by injected time.
//!
//! ```text
//!  submit ─▶ arrivals ─▶ waiting ─▶ running ──step──▶ Event::Token … Event::Finished
//!            (front end)    ▲          │
//!                           └─ preempt ┘   blocks: BlockPool   duration: Timing
//! ```
//!
//! Times are [`Duration`](std::time::Duration)s since an epoch of the caller's choice; nothing here reads a
//! clock, sleeps or does I/O. Everything that a client or a metrics page sees follows from this model.

pub mod blocks;
pub mod event;
pub mod hash;
mod held;
pub mod scheduler;
pub mod sequence;
pub mod timing;

pub use blocks::{BlockId, BlockPool};
pub use event::{Counters, Event};
pub use scheduler::{Engine, EngineConfig, SubmitError};
pub use sequence::{EngineRequest, FinishReason, Hold, Import, RequestId, RequestSummary};
pub use timing::{Latency, Overrides, PrefillLatency, StepLoad, StepModel, Timing};
