//! The parts of one answer.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{StatusCode, request};
use llmd_openai::{Edit, edit};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{Chunker, Wanted};
use crate::error;

/// Most bytes of a part.
const LONGEST: usize = 64 << 20;
const LENGTH: &str = "length";
/// vLLM's words for a prompt, or an answer, that has no room left.
const NO_ROOM: &str = "maximum context length";

/// Text that continues the answer.
#[derive(Debug)]
pub(super) struct Part {
    text: String,
    is_first: bool,
    /// Why the answer ends with it, if it does.
    finish: Option<String>,
}

/// Why a part is not there: what the client gets.
#[derive(Debug)]
pub(super) struct Failure(Box<http::Response<Bytes>>);

impl Failure {
    pub(super) fn new(status: StatusCode, message: &str) -> Self {
        let reply = error::reply(status, message);
        let mut response = http::Response::new(reply.body);
        *response.status_mut() = status;
        response.headers_mut().extend(reply.headers);
        Self(Box::new(response))
    }

    pub(super) fn response(self) -> Response {
        let mut response = *self.0;
        response.headers_mut().remove(CONTENT_LENGTH);
        response.map(Body::from)
    }

    /// The failure as the last event of a stream.
    pub(super) fn event(&self) -> String {
        let said: Result<Value, _> = serde_json::from_slice(self.0.body());
        let error = match said {
            Ok(Value::Object(mut said)) => said.remove("error").unwrap_or(Value::Object(said)),
            Ok(other) => other,
            Err(_) => json!({"message": "the engine failed", "code": self.0.status().as_u16()}),
        };
        format!("data: {}\n\n", json!({ "error": error }))
    }
}

/// One answer, part by part.
pub(super) struct Parts {
    chunker: Arc<Chunker>,
    head: request::Parts,
    body: Bytes,
    cap: Option<u64>,
    least: u64,
    text: String,
    /// Generated so far, and the prompt's.
    tokens: u64,
    prompt_tokens: u64,
    /// The first part's answer: the others belong to it.
    opening: Option<Value>,
    finish: Option<String>,
}

#[derive(Deserialize)]
struct Chat<'a> {
    #[serde(borrow)]
    messages: &'a RawValue,
}

impl Parts {
    pub(super) fn new(chunker: Arc<Chunker>, mut head: request::Parts, body: Bytes, wanted: &Wanted) -> Self {
        head.headers.remove(CONTENT_LENGTH);
        Self {
            chunker,
            head,
            body,
            cap: wanted.cap(),
            least: wanted.min_tokens.unwrap_or(0),
            text: String::new(),
            tokens: 0,
            prompt_tokens: 0,
            opening: None,
            finish: None,
        }
    }

    /// Asks for the next part; `None` after the last one.
    pub(super) async fn next(&mut self) -> Result<Option<Part>, Failure> {
        if self.finish.is_some() {
            return Ok(None);
        }
        let left = self.cap.map(|cap| cap.saturating_sub(self.tokens));
        let budget = left.map_or(self.chunker.tokens, |left| left.min(self.chunker.tokens));
        let body = self.request(Some(budget))?;
        let mut answer = self.ask(body).await?;
        let is_first = self.opening.is_none();
        let mut choice = answer["choices"][0].take();
        if is_first && choice["finish_reason"] == LENGTH && has_more_than_text(&choice["message"]) {
            // What a model thinks cannot be continued by text: the whole answer at once.
            let body = self.request(None)?;
            answer = self.ask(body).await?;
            choice = answer["choices"][0].take();
            self.cap = Some(0);
        }
        let usage = &answer["usage"];
        self.tokens += usage["completion_tokens"].as_u64().unwrap_or(0);
        if is_first {
            self.prompt_tokens = usage["prompt_tokens"].as_u64().unwrap_or(0);
        }
        let text = choice["message"]["content"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let finish = choice["finish_reason"].as_str().unwrap_or(LENGTH).to_owned();
        let is_capped = self.cap.is_some_and(|cap| self.tokens >= cap);
        if finish != LENGTH || is_capped || text.is_empty() {
            self.finish = Some(finish);
        }
        self.text.push_str(&text);
        if is_first {
            answer["choices"] = json!([choice]);
            self.opening = Some(answer);
        }
        let finish = self.finish.clone();
        Ok(Some(Part {
            text,
            is_first,
            finish,
        }))
    }

    fn request(&self, budget: Option<u64>) -> Result<Vec<Bytes>, Failure> {
        let fault = |error: &dyn std::fmt::Display| Failure::new(StatusCode::BAD_REQUEST, &error.to_string());
        let budget = budget.map(|budget| budget.to_string());
        let least = self.least.saturating_sub(self.tokens).to_string();
        let mut edits = vec![Edit::set(&["stream"], "false"), Edit::clear(&["stream_options"])];
        if let Some(budget) = &budget {
            edits.push(Edit::set(&["max_tokens"], budget));
            edits.push(Edit::set(&["max_completion_tokens"], budget));
        }
        let messages;
        if !self.text.is_empty() {
            let chat: Chat<'_> = serde_json::from_slice(&self.body).map_err(|error| fault(&error))?;
            let before = chat.messages.get().trim_end().trim_end_matches(']');
            let said = json!({"role": "assistant", "content": self.text});
            messages = format!("{before},{said}]");
            edits.extend([
                Edit::set(&["messages"], &messages),
                Edit::set(&["continue_final_message"], "true"),
                Edit::set(&["add_generation_prompt"], "false"),
                Edit::clear(&["kv_transfer_params"]),
                Edit {
                    path: &["min_tokens"],
                    value: &least,
                    only_if_present: true,
                },
            ]);
        }
        edit(std::slice::from_ref(&self.body), &edits).map_err(|error| fault(&error))
    }

    async fn ask(&self, body: Vec<Bytes>) -> Result<Value, Failure> {
        let Chunker { caller, engine, .. } = &*self.chunker;
        let answer = caller.call(*engine, &self.head, body, LONGEST).await;
        let answer = answer.map_err(|error| {
            let message = format!("the decode engine does not answer: {error}");
            Failure::new(StatusCode::SERVICE_UNAVAILABLE, &message)
        })?;
        let is_full = || String::from_utf8_lossy(answer.body()).contains(NO_ROOM);
        if self.tokens > 0 && answer.status() == StatusCode::BAD_REQUEST && is_full() {
            return Ok(json!({"choices": [{"message": {"content": ""}, "finish_reason": LENGTH}]}));
        }
        if !answer.status().is_success() {
            return Err(Failure(Box::new(answer)));
        }
        serde_json::from_slice(answer.body())
            .map_err(|error| Failure::new(StatusCode::BAD_GATEWAY, &format!("the engine's answer: {error}")))
    }

    fn usage(&self) -> Value {
        json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.tokens,
            "total_tokens": self.prompt_tokens + self.tokens,
        })
    }

    /// The whole answer, of which `first` is the first part.
    pub(super) async fn rest(&mut self, first: Option<Part>) -> Result<Vec<u8>, Failure> {
        let mut part = first;
        while part.is_some() {
            part = self.next().await?;
        }
        let usage = self.usage();
        let mut whole = self.opening.take().unwrap_or_default();
        whole["choices"][0]["message"]["content"] = std::mem::take(&mut self.text).into();
        whole["choices"][0]["finish_reason"] = self.finish.take().into();
        whole["usage"] = usage;
        Ok(whole.to_string().into_bytes())
    }

    /// A part as an event.
    pub(super) fn event(&self, part: &Part) -> String {
        let mut delta = json!({ "content": part.text });
        if part.is_first {
            // Also what a model thinks, or calls, in an answer of one part.
            delta = self
                .opening
                .as_ref()
                .map_or(delta, |first| first["choices"][0]["message"].clone());
            delta["role"] = "assistant".into();
        }
        let choices = json!([{"index": 0, "delta": delta, "finish_reason": part.finish}]);
        self.chunk(&choices, None)
    }

    /// What follows the last part.
    pub(super) fn tail(&self, tells_usage: bool) -> String {
        let usage = tells_usage.then(|| self.chunk(&json!([]), Some(self.usage())));
        format!("{}data: [DONE]\n\n", usage.unwrap_or_default())
    }

    fn chunk(&self, choices: &Value, usage: Option<Value>) -> String {
        let of = |name: &str| {
            self.opening
                .as_ref()
                .map_or(Value::Null, |first| first[name].clone())
        };
        let mut event = json!({
            "id": of("id"),
            "object": "chat.completion.chunk",
            "created": of("created"),
            "model": of("model"),
            "choices": choices,
        });
        if let Some(usage) = usage {
            event["usage"] = usage;
        }
        format!("data: {event}\n\n")
    }
}

/// Thoughts or calls beside the text.
fn has_more_than_text(message: &Value) -> bool {
    let has_text = |name: &str| message[name].as_str().is_some_and(|text| !text.is_empty());
    let calls = message["tool_calls"]
        .as_array()
        .is_some_and(|calls| !calls.is_empty());
    calls || has_text("reasoning") || has_text("reasoning_content")
}
