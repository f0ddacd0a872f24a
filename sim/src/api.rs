//! The OpenAI surface as vLLM serves it: requests in, planned answers and response bodies out.

pub mod answer;
pub mod body;
pub mod error;
pub mod models;
pub mod prompt;
pub mod request;
pub mod stream;

pub use answer::Answer;
pub use error::ApiError;
pub use request::{Kind, Request};
