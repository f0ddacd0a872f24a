//! What one inference request asks for, as plugins see it.

use std::any::Any;
use std::sync::Arc;

use llmd_openai::RequestFacts;

use crate::attribute::TokenizedPrompt;

/// Priority and flow of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objective {
    /// `InferenceObjective` priority; below zero is sheddable. 0 when no objective is named.
    pub priority: i32,
    /// Flow identity, `default-flow` when no header names one.
    pub fairness_id: Arc<str>,
}

/// Request headers with lower-cased names, in arrival order.
#[derive(Clone, Debug, Default)]
pub struct Headers(Vec<(Box<str>, Box<[u8]>)>);

impl Headers {
    /// Appends a header; the name is lower-cased.
    pub fn push(&mut self, name: &str, value: &[u8]) {
        self.0
            .push((name.to_ascii_lowercase().into_boxed_str(), value.into()));
    }

    /// The first value of `name` (lower case) that is UTF-8.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| &**key == name)
            .and_then(|(_, value)| std::str::from_utf8(value).ok())
    }

    /// All headers.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }
}

/// A parsed request on its way through the pipeline.
#[derive(Debug)]
pub struct InferenceRequest {
    /// `x-request-id`, or one the shell made.
    pub request_id: Arc<str>,
    /// Model the client named; empty for passthrough requests.
    pub incoming_model: Arc<str>,
    /// Model the engine is asked for.
    pub target_model: Arc<str>,
    /// Priority and fairness.
    pub objective: Objective,
    /// Client headers.
    pub headers: Headers,
    /// Body length in bytes.
    pub size_bytes: usize,
    /// What the body scanner found; empty for requests without a parsed body.
    pub facts: RequestFacts,
    /// What plugins left with it while it waited for others.
    pub gathered: Vec<Arc<dyn Any + Send + Sync>>,
    /// The prompts' tokens, where an engine was asked for them before the request is decided.
    pub tokens: Option<TokenizedPrompt>,
}
