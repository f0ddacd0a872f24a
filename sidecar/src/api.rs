//! The APIs whose requests have a prefill leg, and how each is held to one token.

use http::{Method, request};
use llmd_openai::Edit;

/// An API with prompts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Api {
    ChatCompletions,
    Completions,
    Messages,
    Responses,
    Generate,
}

/// What a leg that computes a prompt never does: stream.
const NO_STREAM: [Edit<'static>; 2] = [Edit::set(&["stream"], "false"), Edit::clear(&["stream_options"])];
const OPENAI: [Edit<'static>; 3] = [
    Edit::set(&["max_tokens"], "1"),
    Edit::set(&["max_completion_tokens"], "1"),
    Edit::set(&["min_tokens"], "1"),
];
const ANTHROPIC: [Edit<'static>; 1] = [Edit::set(&["max_tokens"], "1")];
const RESPONSES: [Edit<'static>; 1] = [Edit::set(&["max_output_tokens"], "1")];
const GENERATE: [Edit<'static>; 2] = [
    Edit::set(&["sampling_params", "max_tokens"], "1"),
    Edit::set(&["sampling_params", "min_tokens"], "1"),
];

impl Api {
    /// The API that a request asks; `None` for what only passes through.
    pub(crate) fn of(head: &request::Parts) -> Option<Self> {
        if head.method != Method::POST {
            return None;
        }
        match head.uri.path() {
            "/v1/chat/completions" => Some(Self::ChatCompletions),
            "/v1/completions" => Some(Self::Completions),
            "/v1/messages" => Some(Self::Messages),
            "/v1/responses" => Some(Self::Responses),
            "/inference/v1/generate" => Some(Self::Generate),
            _ => None,
        }
    }

    /// Name in spans.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::ChatCompletions => "chat_completions",
            Self::Completions => "completions",
            Self::Messages => "messages",
            Self::Responses => "responses",
            Self::Generate => "generate",
        }
    }

    /// Changes that make a request compute its prompt and one token.
    pub(crate) fn one_token<'a>(self) -> impl Iterator<Item = Edit<'a>> {
        let always: &[Edit<'a>] = &NO_STREAM;
        let caps: &[Edit<'a>] = match self {
            Self::ChatCompletions | Self::Completions => &OPENAI,
            Self::Messages => &ANTHROPIC,
            Self::Responses => &RESPONSES,
            Self::Generate => &GENERATE,
        };
        always.iter().chain(caps).copied()
    }
}
