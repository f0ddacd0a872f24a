//! `llmd sim`: an inference engine without a model, for tests, demonstrations and load studies.
//!
//! Takes in: OpenAI requests over HTTP and flags named as llm-d-inference-sim's.
//! Holds: one pure [`engine`] (a vLLM-v1-shaped scheduler over paged KV blocks with a prefix cache) and a task
//! that drives it in real time. Gives out: what vLLM would answer, when vLLM would answer it, and the
//! `vllm:*` metrics that follow.
//!
//! ```text
//!  HTTP ─▶ api (parse, plan the answer) ─▶ driver ─▶ engine::Engine   (one timer)
//!    ◀── stream (SSE or JSON) ◀── Progress (atomics + waker) ◀── Event
//!                                  metrics ◀──────────────────────┘
//! ```
//!
//! Text and token ids of an answer are decided on arrival (seed + prompt); the engine decides when each
//! token appears, so latency, queueing, cache hits and preemption all come from one step model.

pub mod api;
pub mod args;
pub mod driver;
pub mod engine;
pub mod failure;
mod front;
mod group;
pub mod metrics;
pub mod server;
mod service;
pub mod tokens;
pub mod transfer;

pub use args::{ConfigError, DisaggregationMode, SimArgs, SimConfig};
pub use server::{Simulator, run};
