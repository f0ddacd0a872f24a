//! One request inside the engine: its tokens, its blocks and its times.

use std::sync::Arc;
use std::time::Duration;

use super::blocks::BlockId;
use super::hash;

/// Number of a request, unique within an engine.
pub type RequestId = u64;

/// Why a request ended (`finished_reason` of `vllm:request_success_total`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FinishReason {
    /// The model ended its answer, or a stop string came up.
    Stop,
    /// The token cap was reached.
    Length,
    /// The client went away.
    Abort,
}

impl FinishReason {
    /// All reasons, in the order of the metrics page.
    pub const ALL: [Self; 3] = [Self::Stop, Self::Length, Self::Abort];

    /// vLLM's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Abort => "abort",
        }
    }
}

/// KV entries of the first tokens of a prompt that come from elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Import {
    /// Tokens that the other side has; what the prompt has beyond them is computed here.
    pub tokens: usize,
    /// Time from admission until they are here; slot and blocks are taken meanwhile.
    pub wait: Duration,
}

/// Keeps the blocks of a request that ended, for another engine to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Name by which they are asked for.
    pub key: Arc<str>,
    /// Time until they are freed unless somebody asks.
    pub lease: Duration,
}

/// What a caller asks of the engine. The answer is decided beforehand; the engine decides *when*.
#[derive(Clone, Debug)]
pub struct EngineRequest {
    /// Prompt tokens, at least one.
    pub prompt: Arc<[u32]>,
    /// Tokens to generate, at least one; generated blocks join the prefix cache like prompt blocks.
    pub output: Arc<[u32]>,
    /// How the answer ends once `output` is used up.
    pub finish: FinishReason,
    /// LoRA adapter.
    pub adapter: Option<Arc<str>>,
    /// `cache_salt` of the request.
    pub salt: Option<Arc<str>>,
    /// Factor on the latencies of this request, 1 or more (failure injection); 1 is normal.
    pub slowdown: f64,
    /// What need not be computed here.
    pub import: Option<Import>,
    /// What others will read.
    pub hold: Option<Hold>,
}

/// Times and counts of a finished request; durations as vLLM's histograms define them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RequestSummary {
    /// How it ended.
    pub finish: FinishReason,
    /// Prompt tokens.
    pub prompt_tokens: usize,
    /// Prompt tokens found in the prefix cache or imported at the first admission.
    pub cached_tokens: usize,
    /// Those of them that were imported.
    pub imported_tokens: usize,
    /// Generated tokens.
    pub generated_tokens: usize,
    /// Times the request was preempted.
    pub preemptions: u32,
    /// Arrival to end.
    pub end_to_end: Duration,
    /// Arrival at the scheduler to first admission.
    pub queue: Duration,
    /// First admission to first token.
    pub prefill: Duration,
    /// First token to end.
    pub decode: Duration,
}

/// A request with its progress. Conservation of requests and blocks rests on ownership: a sequence is
/// in exactly one queue, and its blocks leave with it.
#[derive(Debug)]
pub(super) struct Sequence {
    pub(super) id: RequestId,
    pub(super) request: EngineRequest,
    /// Tokens generated so far.
    pub(super) generated: usize,
    /// Tokens whose KV entries exist.
    pub(super) computed: usize,
    /// Tokens in the step under way.
    pub(super) scheduled: usize,
    pub(super) blocks: Vec<BlockId>,
    /// Hashes of the full blocks, as far as known.
    hashes: Vec<u64>,
    root: u64,
    /// No token before this moment (latency overrides).
    pub(super) due: Duration,
    pub(super) arrival: Duration,
    pub(super) queued: Duration,
    pub(super) admitted: Option<Duration>,
    pub(super) first_token: Option<Duration>,
    pub(super) last_token: Duration,
    pub(super) cached_tokens: usize,
    pub(super) imported_tokens: usize,
    /// Leading blocks that others may share.
    pub(super) published: usize,
    pub(super) preemptions: u32,
}

impl Sequence {
    pub(super) fn new(id: RequestId, request: EngineRequest, arrival: Duration) -> Self {
        let root = hash::root(request.adapter.as_deref(), request.salt.as_deref());
        Self {
            id,
            request,
            generated: 0,
            computed: 0,
            scheduled: 0,
            blocks: Vec::new(),
            hashes: Vec::new(),
            root,
            due: Duration::ZERO,
            arrival,
            queued: arrival,
            admitted: None,
            first_token: None,
            last_token: arrival,
            cached_tokens: 0,
            imported_tokens: 0,
            published: 0,
            preemptions: 0,
        }
    }

    /// Prompt and generated tokens.
    pub(super) fn tokens(&self) -> usize {
        self.request.prompt.len() + self.generated
    }

    /// Whether the step under way (or the next one) still works on the prompt, or on tokens lost to preemption.
    pub(super) fn prefilling(&self) -> bool {
        self.tokens() - self.computed > 1 || self.first_token.is_none()
    }

    /// Hash of full block `index`.
    pub(super) fn block_hash(&mut self, index: usize, block_size: usize) -> u64 {
        while self.hashes.len() <= index {
            let parent = self.hashes.last().copied().unwrap_or(self.root);
            let start = self.hashes.len() * block_size;
            let (prompt, output) = (&self.request.prompt, &self.request.output);
            let tokens = (start..start + block_size).map(|at| {
                if at < prompt.len() {
                    prompt[at]
                } else {
                    output[at - prompt.len()]
                }
            });
            self.hashes.push(hash::block(parent, tokens));
        }
        self.hashes[index]
    }

    pub(super) fn summary(&self, finish: FinishReason, now: Duration) -> RequestSummary {
        let admitted = self.admitted.unwrap_or(now);
        let first = self.first_token.unwrap_or(now);
        RequestSummary {
            finish,
            prompt_tokens: self.request.prompt.len(),
            cached_tokens: self.cached_tokens,
            imported_tokens: self.imported_tokens,
            generated_tokens: self.generated,
            preemptions: self.preemptions,
            end_to_end: now.saturating_sub(self.arrival),
            queue: admitted.saturating_sub(self.queued),
            prefill: first.saturating_sub(admitted),
            decode: now.saturating_sub(first),
        }
    }
}
