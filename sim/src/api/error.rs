//! Error answers in vLLM's shape: `{"error": {"message", "type", "param", "code"}}`.

use std::sync::Arc;

use serde::Serialize;

/// An error answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// HTTP status, also the `code` of the body.
    pub status: u16,
    /// vLLM's error type.
    pub kind: &'static str,
    /// What is wrong.
    pub message: String,
    /// The request member at fault.
    pub param: Option<&'static str>,
}

impl ApiError {
    /// An error without a member at fault.
    pub fn new(status: u16, kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            message: message.into(),
            param: None,
        }
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequestError", message)
    }

    /// 400 for one member.
    pub fn field(param: &'static str, message: impl Into<String>) -> Self {
        Self {
            param: Some(param),
            ..Self::bad_request(message)
        }
    }

    /// 404 for a model that is not served.
    pub fn unknown_model(model: &str, served: &[Arc<str>]) -> Self {
        let names = served.iter().map(|name| &**name).collect::<Vec<_>>().join(", ");
        let message = format!("The model `{model}` does not exist. Valid aliases: {names}.");
        Self {
            param: Some("model"),
            ..Self::new(404, "NotFoundError", message)
        }
    }

    /// 400 for a prompt, or prompt and cap, that exceed the context.
    pub fn context_length(limit: usize, prompt: usize, output: usize) -> Self {
        let message = format!(
            "This model's maximum context length is {limit} tokens. However, you requested {output} output tokens and your \
             prompt contains {prompt} input tokens, for a total of {} tokens. Please reduce the length of the input prompt or \
             the number of requested output tokens.",
            prompt + output
        );
        Self::field("input_tokens", message)
    }

    /// The JSON body.
    pub fn body(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Body<'a> {
            error: Inner<'a>,
        }
        #[derive(Serialize)]
        struct Inner<'a> {
            message: &'a str,
            r#type: &'a str,
            param: Option<&'a str>,
            code: u16,
        }
        let inner = Inner {
            message: &self.message,
            r#type: self.kind,
            param: self.param,
            code: self.status,
        };
        serde_json::to_vec(&Body { error: inner }).unwrap_or_default()
    }
}
