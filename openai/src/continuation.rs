//! Continuing a streamed answer on another engine: what the client has of it, the request for the
//! rest, and the events of the rest made to carry on.
//!
//! ```text
//!  events of the first engine ─▶ StreamFollower ─▶ text so far, id, tokens
//!  the client's request + text so far ─▶ continue_request ─▶ request for the rest
//!  events of the next engine ─▶ Seam ─▶ events of the same answer
//! ```
//!
//! The text so far goes back as the beginning of the answer: as a last assistant message with
//! `continue_final_message: true` and `add_generation_prompt: false` for chat (vLLM
//! `entrypoints/openai/protocol.py`, SGLang takes the first of both), appended to the prompt for
//! completions. Only the request is rebuilt, and only when an engine has failed; its other members
//! keep their bytes.

mod ending;
mod follow;
mod members;
mod request;
mod seam;

pub use ending::{LENGTH, ending};
pub use follow::StreamFollower;
pub use request::{NotContinuable, check_continuable, continue_request};
pub use seam::Seam;

#[cfg(test)]
mod tests;
