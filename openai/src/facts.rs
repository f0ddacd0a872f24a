//! What the scanner found in a request body.

use crate::MediaPart;

/// A byte range `start..end` of a whole body, offsets from its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

/// The `model` member of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelField {
    /// Decoded value.
    pub value: String,
    /// The raw JSON string in the body, quotes included; `None` where the body cannot have another name.
    pub span: Option<Span>,
}

/// One prompt of a request; `completions` may carry several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// The content prefix caches depend on.
    pub input: PromptInput,
}

impl Prompt {
    /// Whether the client sent text.
    pub fn is_text(&self) -> bool {
        matches!(self.input, PromptInput::Text(_))
    }
}

/// Content of a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PromptInput {
    /// Decoded text bytes in the order of upstream's estimate backend: tools JSON, then per message
    /// role and text (llm-d-router token-producer, `estimate`).
    Text(Vec<u8>),
    /// Token ids as the client sent them.
    Tokens(Vec<u32>),
}

/// What a request body says, as far as routing needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestFacts {
    /// The `model` member; `None` when absent.
    pub model: Option<ModelField>,
    /// `stream: true`.
    pub stream: bool,
    /// `stream_options.include_usage: true`.
    pub include_usage: bool,
    /// The client's output cap in tokens: `max_completion_tokens`, else `max_tokens`
    /// (`max_output_tokens` for responses); only non-negative integers count.
    pub max_output_tokens: Option<u64>,
    /// `cache_salt`: separates prefix caches of tenants.
    pub cache_salt: Option<String>,
    /// The prompts, in body order.
    pub prompts: Vec<Prompt>,
    /// Content blocks that are not text (images, audio, video); their bytes are not in the prompt.
    pub media_parts: usize,
    /// Images, videos and audio of chat messages, in the order of their place in the only prompt.
    pub media: Vec<MediaPart>,
}
