//! Request bodies of chat completions and completions, and the checks vLLM makes.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::ApiError;
use crate::transfer::encodings::Encodings;
use crate::transfer::params::Asked;

/// Which endpoint a request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/completions`.
    Completion,
}

/// Members of both kinds of request; those that no model is needed for are honoured, those that would need
/// one are refused by [`Request::check`], the sampling ones (temperature and the like) have no meaning here.
#[derive(Debug, Deserialize)]
pub struct Request {
    /// Model or adapter; absent means the first model, as in vLLM.
    pub model: Option<String>,
    /// Chat only.
    pub messages: Option<Vec<Message>>,
    /// Completions only.
    pub prompt: Option<PromptField>,
    /// Output cap.
    pub max_tokens: Option<i64>,
    /// Output cap, the newer name.
    pub max_completion_tokens: Option<i64>,
    /// Least output.
    #[serde(default)]
    pub min_tokens: usize,
    /// Answers per prompt.
    pub n: Option<usize>,
    /// Stream the answer.
    pub stream: Option<bool>,
    /// What a stream reports.
    pub stream_options: Option<StreamOptions>,
    /// Texts that end the answer.
    pub stop: Option<Stop>,
    /// Tokens that end the answer.
    #[serde(default)]
    pub stop_token_ids: Vec<u32>,
    /// Keep the stop text.
    #[serde(default)]
    pub include_stop_str_in_output: bool,
    /// Go on to the cap.
    #[serde(default)]
    pub ignore_eos: bool,
    /// Go on with the last message, an assistant's, instead of answering it; chat only.
    #[serde(default)]
    pub continue_final_message: bool,
    /// Invite an answer after the messages; chat only, true unless a message is continued.
    pub add_generation_prompt: Option<bool>,
    /// Repeat the prompt before the answer.
    #[serde(default)]
    pub echo: bool,
    /// Varies the answer.
    pub seed: Option<i64>,
    /// Separates prefix caches.
    pub cache_salt: Option<String>,
    /// What the KV connector is asked for.
    pub kv_transfer_params: Option<Asked>,
    /// SGLang: host of the prefill engine.
    pub bootstrap_host: Option<String>,
    /// SGLang: port of its bootstrap server.
    pub bootstrap_port: Option<u16>,
    /// SGLang: where the prefill and the decode of this request meet.
    pub bootstrap_room: Option<i64>,
    /// Where encodings of media are to be read, by hash of the medium.
    pub ec_transfer_params: Option<Encodings>,
    /// Tools; only with `tool_choice: none`.
    pub tools: Option<Vec<Box<RawValue>>>,
    /// Refused unless `none`.
    pub tool_choice: Option<Box<RawValue>>,
    /// Refused unless `text`.
    pub response_format: Option<ResponseFormat>,
    /// Refused: bool for chat, count for completions.
    pub logprobs: Option<serde_json::Value>,
    /// Refused.
    pub top_logprobs: Option<i64>,
    /// Refused.
    pub prompt_logprobs: Option<i64>,
    /// Refused.
    pub suffix: Option<String>,
    /// Refused.
    #[serde(default)]
    pub use_beam_search: bool,
}

/// A chat message.
#[derive(Debug, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: String,
    /// What is said.
    pub content: Option<Content>,
    /// Calls an assistant made.
    pub tool_calls: Option<Vec<Box<RawValue>>>,
}

/// Text, or parts.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Content {
    /// Text.
    Text(String),
    /// Parts.
    Parts(Vec<Part>),
}

/// A part of a message.
#[derive(Debug, Deserialize)]
pub struct Part {
    /// `text`, or a medium.
    pub r#type: String,
    /// Text of a text part.
    pub text: Option<String>,
    /// Media, by the name of their type.
    #[serde(flatten)]
    pub rest: serde_json::Map<String, serde_json::Value>,
}

/// What completions take as prompt.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum PromptField {
    /// One text.
    Text(String),
    /// One prompt as token ids.
    Tokens(Vec<u32>),
    /// Several texts.
    Texts(Vec<String>),
    /// Several prompts as token ids.
    TokenLists(Vec<Vec<u32>>),
}

/// One or several stop texts.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Stop {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

/// `stream_options`.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct StreamOptions {
    /// A last chunk with usage.
    #[serde(default)]
    pub include_usage: bool,
    /// Usage in each chunk.
    #[serde(default)]
    pub continuous_usage_stats: bool,
}

/// `response_format`.
#[derive(Debug, Deserialize)]
pub struct ResponseFormat {
    /// `text`, `json_object`, …
    pub r#type: String,
}

/// Most answers of one request (prompts times `n`).
pub const MAX_CHOICES: usize = 256;

impl Request {
    /// Reads a body; errors name the member as far as serde knows it.
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        serde_json::from_slice(body)
            .map_err(|error| ApiError::bad_request(format!("invalid request body: {error}")))
    }

    /// Refuses what is wrong, and what a simulator cannot do.
    pub fn check(&self, kind: Kind) -> Result<(), ApiError> {
        let unsupported = |param: &'static str| {
            ApiError::field(param, format!("{param} is not supported by the simulator"))
        };
        match kind {
            Kind::Chat if self.messages.is_none() => {
                return Err(ApiError::field("messages", "messages: Field required"));
            }
            Kind::Completion if self.prompt.is_none() => {
                return Err(ApiError::field("prompt", "prompt: Field required"));
            }
            Kind::Chat if self.echo => return Err(unsupported("echo")),
            Kind::Chat if self.continue_final_message && self.add_generation_prompt == Some(true) => {
                return Err(ApiError::bad_request(
                    "Cannot set both `continue_final_message` and `add_generation_prompt` to True.",
                ));
            }
            Kind::Chat if !self.continue_final_message && self.add_generation_prompt == Some(false) => {
                return Err(unsupported("add_generation_prompt"));
            }
            Kind::Chat if self.continue_final_message && !self.ends_with_assistant() => {
                let message = "continue_final_message needs an assistant message with text at the end";
                return Err(ApiError::field("messages", message));
            }
            _ => {}
        }
        if self.stream_options.is_some() && self.stream != Some(true) {
            return Err(ApiError::field(
                "stream_options",
                "Stream options can only be defined when `stream=True`.",
            ));
        }
        for (param, cap) in [
            ("max_tokens", self.max_tokens),
            ("max_completion_tokens", self.max_completion_tokens),
        ] {
            if let Some(cap) = cap.filter(|cap| *cap < 1) {
                return Err(ApiError::field(
                    param,
                    format!("{param} must be at least 1, got {cap}."),
                ));
            }
        }
        if let Some(cap) = self.cap().filter(|cap| *cap < self.min_tokens) {
            let message = format!(
                "min_tokens must be less than or equal to max_tokens={cap}, got {}.",
                self.min_tokens
            );
            return Err(ApiError::field("min_tokens", message));
        }
        if self.n == Some(0) {
            return Err(ApiError::field("n", "n must be at least 1, got 0."));
        }
        if self.n.is_some_and(|n| n > MAX_CHOICES) {
            return Err(ApiError::field("n", format!("n must be at most {MAX_CHOICES}.")));
        }
        if self.stop_texts().iter().any(String::is_empty) {
            return Err(ApiError::field("stop", "stop cannot contain an empty string."));
        }
        if self.cache_salt.as_deref() == Some("") {
            return Err(ApiError::field(
                "cache_salt",
                "Parameter 'cache_salt' must be a non-empty string if provided.",
            ));
        }
        let choice = self.tool_choice.as_ref().map(|choice| choice.get());
        match (self.tools.as_ref().is_some_and(|tools| !tools.is_empty()), choice) {
            (_, Some("\"none\"" | "null")) | (false, None) => {}
            (true, None | Some("\"auto\"")) => {
                let message = "\"auto\" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set";
                return Err(ApiError::field("tool_choice", message));
            }
            _ => return Err(unsupported("tool_choice")),
        }
        if self
            .response_format
            .as_ref()
            .is_some_and(|format| format.r#type != "text")
        {
            return Err(unsupported("response_format"));
        }
        if self
            .logprobs
            .as_ref()
            .is_some_and(|value| !matches!(value, serde_json::Value::Null | serde_json::Value::Bool(false)))
        {
            return Err(unsupported("logprobs"));
        }
        if self.top_logprobs.is_some_and(|count| count != 0) {
            return Err(unsupported("top_logprobs"));
        }
        if self.prompt_logprobs.is_some() {
            return Err(unsupported("prompt_logprobs"));
        }
        if self.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty()) {
            return Err(unsupported("suffix"));
        }
        if self.use_beam_search {
            return Err(unsupported("use_beam_search"));
        }
        Ok(())
    }

    fn ends_with_assistant(&self) -> bool {
        let last = self.messages.as_ref().and_then(|messages| messages.last());
        last.is_some_and(|last| last.role == "assistant" && matches!(last.content, Some(Content::Text(_))))
    }

    /// The client's output cap; the newer name wins.
    pub fn cap(&self) -> Option<usize> {
        self.max_completion_tokens
            .or(self.max_tokens)
            .and_then(|cap| usize::try_from(cap).ok())
    }

    /// The texts that end the answer.
    pub fn stop_texts(&self) -> &[String] {
        match &self.stop {
            Some(Stop::One(text)) => std::slice::from_ref(text),
            Some(Stop::Many(texts)) => texts,
            None => &[],
        }
    }

    /// Whether to stream.
    pub fn streams(&self) -> bool {
        self.stream == Some(true)
    }
}
