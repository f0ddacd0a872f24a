//! What the engine reports: events in order of time, and totals.

use std::sync::Arc;
use std::time::Duration;

use super::blocks::BlockId;
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
    /// The blocks of a request that ends now are kept for others.
    Held {
        /// The request.
        id: RequestId,
        /// Name by which they are asked for.
        key: Arc<str>,
        /// The blocks, in order of the prompt.
        blocks: Vec<BlockId>,
        /// Tokens in them.
        tokens: usize,
    },
    /// Nobody asked for held blocks in time: they are free.
    Expired {
        /// The request they were of.
        id: RequestId,
    },
    /// A request has ended; its blocks are free, unless they are held.
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
    /// Tokens asked of other engines (`vllm:external_prefix_cache_queries_total`).
    pub external_queries: u64,
    /// Tokens that came from there (`vllm:external_prefix_cache_hits_total`).
    pub external_hits: u64,
    /// Preemptions.
    pub preemptions: u64,
    /// Prompt tokens of requests that got their first token.
    pub prompt_tokens: u64,
    /// Generated tokens.
    pub generated_tokens: u64,
}
