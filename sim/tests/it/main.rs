//! The simulator over loopback: what an OpenAI client sees, and what the metrics page says.

mod client;
mod failures;
mod openai;
