//! What the engine reports: events in order of time, and totals.

use std::time::Duration;

use super::sequence::{RequestId, RequestSummary};

/// What happened, in order of time.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A step ended.
    Step {
        /// Tokens it computed.
        tokens: u64,
    },
    /// A request has its first token: the prompt is computed.
    FirstToken {
        /// The request.
        id: RequestId,
        /// Since arrival.
        latency: Duration,
        /// Prompt tokens that came from the prefix cache.
        cached_tokens: usize,
    },
    /// A request has one more token.
    Token {
        /// The request.
        id: RequestId,
        /// Since its previous token.
        latency: Duration,
    },
    /// A request has ended; its blocks are free.
    Finished {
        /// The request.
        id: RequestId,
        /// Its times.
        summary: RequestSummary,
    },
}

/// Totals since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Tokens looked up in the prefix cache (`vllm:prefix_cache_queries_total`).
    pub prefix_queries: u64,
    /// Tokens found there (`vllm:prefix_cache_hits_total`).
    pub prefix_hits: u64,
    /// Preemptions.
    pub preemptions: u64,
    /// Prompt tokens of requests that got their first token.
    pub prompt_tokens: u64,
    /// Generated tokens.
    pub generated_tokens: u64,
}
