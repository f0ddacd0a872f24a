//! An engine that is asked for the tokens of prompts before requests are decided.

use std::sync::Arc;
use std::time::Duration;

/// vLLM's `/v1/…/render`, as `token-producer` configures it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenderBackend {
    /// `http://host:port`, without a slash at its end.
    pub url: Arc<str>,
    /// Takes the place of the model's name in what is sent.
    pub model: Arc<str>,
    /// Longest wait for the tokens of a text.
    pub timeout: Duration,
    /// Longest wait for a request with media.
    pub media_timeout: Duration,
}
