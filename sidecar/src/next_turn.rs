//! Speculative prefill: after a chat, the engine that computed its prompt computes the beginning of the next one.
//!
//! ```text
//!  client ◀── answer ── engine                     the answer is kept beside, up to 1 MiB
//!  then: messages + answer + a user's " " ──▶ engine, one token     the next turn finds all of that in the cache
//! ```
//!
//! On request only (`x-speculative-prefill: true`), one at a time: what cannot run at once does not run. The last
//! message makes chat templates write the answer as history, as the next turn will. Source: llm-d-router
//! `pkg/sidecar/proxy` (speculative prefill, v0.10).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, request};
use llmd_openai::{Edit, EditError, edit, header};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::api::Api;
use crate::connector::{Connector, PARAMS, sglang};
use crate::hosts;
use crate::metrics::NextTurn as Outcome;
use crate::route::Shared;

/// Asks for it.
pub(crate) const HEADER: &str = "x-speculative-prefill";

/// Most bytes of an answer; of a longer one nothing is made.
const LONGEST: usize = 1 << 20;

/// Longest time that it may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// One at a time, as upstream has it: requests come first.
pub(crate) fn slots() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(1))
}

/// A chat whose next turn is prepared when it is over.
pub(crate) struct NextTurn {
    shared: Arc<Shared>,
    engine: SocketAddr,
    prefiller: Option<String>,
    head: Option<request::Parts>,
    body: Vec<Bytes>,
    answer: BytesMut,
    _slot: OwnedSemaphorePermit,
}

#[derive(Debug, thiserror::Error)]
enum WarmError {
    #[error("the chat cannot be continued: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the chat cannot be continued: {0}")]
    Edit(#[from] EditError),
    #[error("{0}")]
    Engine(String),
    #[error("it took more than {DEADLINE:?}")]
    Late,
}

impl NextTurn {
    /// For a request that asks for it, where nothing else is under way.
    pub(crate) fn begin(
        shared: &Arc<Shared>,
        headers: &HeaderMap,
        api: Api,
        engine: SocketAddr,
        prefiller: Option<&String>,
    ) -> Option<Self> {
        let slots = shared.next_turns.clone()?;
        let asked = headers.get(HEADER).and_then(|value| value.to_str().ok());
        // the spellings of Go's ParseBool
        let is_asked =
            asked.is_some_and(|asked| matches!(asked.trim(), "1" | "t" | "T" | "true" | "True" | "TRUE"));
        if !is_asked || api != Api::ChatCompletions {
            return None;
        }
        let Ok(slot) = slots.try_acquire_owned() else {
            shared.metrics.next_turn(Outcome::Skipped);
            return None;
        };
        Some(Self {
            shared: Arc::clone(shared),
            engine,
            prefiller: prefiller.cloned(),
            head: None,
            body: Vec::new(),
            answer: BytesMut::new(),
            _slot: slot,
        })
    }

    /// The request, before any leg changed it.
    pub(crate) fn asked(&mut self, head: &request::Parts, body: &[Bytes]) {
        self.head = Some(head.clone());
        self.body = body.to_vec();
    }

    /// A part of the answer; whether it is still of use.
    pub(crate) fn answered(&mut self, chunk: &[u8]) -> bool {
        let fits = self.answer.len() + chunk.len() <= LONGEST;
        if fits {
            self.answer.extend_from_slice(chunk);
        }
        fits
    }

    /// The chat is over: prepares the next turn in the background.
    pub(crate) fn prepare(self) {
        tokio::spawn(async move {
            let warmed = tokio::time::timeout(DEADLINE, self.warm()).await;
            let outcome = match warmed.unwrap_or(Err(WarmError::Late)) {
                Ok(true) => Outcome::Warmed,
                Ok(false) => Outcome::Skipped,
                Err(error) => {
                    tracing::debug!(%error, "a next turn was not prepared");
                    Outcome::Failed
                }
            };
            self.shared.metrics.next_turn(outcome);
        });
    }

    /// Whether there was something to compute.
    async fn warm(&self) -> Result<bool, WarmError> {
        let Some((mut head, text)) = self.head.clone().zip(text(&self.answer)) else {
            return Ok(false);
        };
        let body = turn(&self.body, &text)?;
        let id = head
            .headers
            .get(header::REQUEST_ID)
            .and_then(|id| id.to_str().ok());
        if let Ok(id) = HeaderValue::from_str(&format!("{}-next", id.unwrap_or_default())) {
            head.headers.insert(header::REQUEST_ID, id);
        }
        let callers = &self.shared.callers;
        let Some(host) = &self.prefiller else {
            ask(&callers.decode, self.engine, &head, body).await?;
            return Ok(true);
        };
        let target = hosts::resolve(host)
            .await
            .map_err(|error| WarmError::Engine(error.to_string()))?;
        if let Connector::Sglang { bootstrap_port } = &self.shared.connector {
            // a prefill there waits for its decode
            let body = sglang::meeting(&body, host, *bootstrap_port, sglang::room())?;
            let prefill = ask(&callers.prefill, target, &head, body.clone());
            tokio::try_join!(prefill, ask(&callers.decode, self.engine, &head, body))?;
        } else {
            ask(&callers.prefill, target, &head, body).await?;
        }
        Ok(true)
    }
}

async fn ask(
    caller: &llmd_proxy::Caller,
    target: SocketAddr,
    head: &request::Parts,
    body: Vec<Bytes>,
) -> Result<(), WarmError> {
    let answer = caller.call(target, head, body, LONGEST).await;
    let status = answer
        .map_err(|error| WarmError::Engine(error.to_string()))?
        .status();
    if status.is_success() {
        Ok(())
    } else {
        Err(WarmError::Engine(format!("{target} answered {status}")))
    }
}

/// The next turn as far as it is known: the chat, its answer, and a user's turn without words.
fn turn(body: &[Bytes], answer: &str) -> Result<Vec<Bytes>, WarmError> {
    #[derive(Deserialize)]
    struct Chat {
        messages: Vec<Box<RawValue>>,
    }
    #[derive(Serialize)]
    struct Turn<'a> {
        role: &'a str,
        content: &'a str,
    }
    let whole = body.concat();
    let mut messages = serde_json::from_slice::<Chat>(&whole)?.messages;
    for (role, content) in [("assistant", answer), ("user", " ")] {
        messages.push(serde_json::value::to_raw_value(&Turn { role, content })?);
    }
    let messages = serde_json::to_string(&messages)?;
    let own = [Edit::set(&["messages"], &messages), Edit::clear(&[PARAMS])];
    let edits: Vec<Edit<'_>> = Api::ChatCompletions.one_token().chain(own).collect();
    Ok(edit(body, &edits)?)
}

/// The text of a chat's first choice, in one piece or as events; `None` where there is none, as with calls of tools.
fn text(answer: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Answer {
        choices: Vec<Choice>,
    }
    #[derive(Deserialize)]
    struct Choice {
        #[serde(default)]
        index: u32,
        #[serde(alias = "delta")]
        message: Option<Message>,
    }
    #[derive(Deserialize)]
    struct Message {
        content: Option<String>,
    }
    let first = |answer: Answer| {
        let choice = answer.choices.into_iter().find(|choice| choice.index == 0)?;
        choice.message?.content
    };
    if let Ok(whole) = serde_json::from_slice::<Answer>(answer) {
        return first(whole).filter(|text| !text.is_empty());
    }
    let events = std::str::from_utf8(answer).ok()?.lines();
    let events = events.filter_map(|line| line.trim_end().strip_prefix("data:"));
    let pieces = events.filter_map(|event| first(serde_json::from_str(event).ok()?));
    Some(pieces.collect::<String>()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_becomes_history() {
        let body = [Bytes::from_static(
            br#"{"model":"m","messages":[{"role":"user","content":"a","n":12345678901234567890}],"stream":true,"max_tokens":50,"kv_transfer_params":{"x":1}}"#,
        )];
        let next = String::from_utf8(turn(&body, "b\"c").expect("a chat").concat()).expect("text");
        let messages = r#"[{"role":"user","content":"a","n":12345678901234567890},{"role":"assistant","content":"b\"c"},{"role":"user","content":" "}]"#;
        assert!(next.contains(&format!(r#""messages":{messages}"#)), "{next}");
        for part in [
            r#""stream":false"#,
            r#""max_tokens":1,"#,
            r#""max_completion_tokens":1"#,
            r#""kv_transfer_params":null"#,
        ] {
            assert!(next.contains(part), "{part}: {next}");
        }
        turn(&[Bytes::from_static(b"{}")], "b").expect_err("no chat");
    }

    #[test]
    fn the_text_of_an_answer_is_found_in_both_shapes() {
        let whole = br#"{"choices":[{"index":1,"message":{"content":"x"}},{"index":0,"message":{"content":"hello"}}]}"#;
        assert_eq!(text(whole).as_deref(), Some("hello"));
        let events = "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\ndata: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hel\"}}]}\r\n\r\ndata: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"lo\"}}]}\n\ndata: {\"choices\":[],\"usage\":{}}\n\ndata: [DONE]\n\n";
        assert_eq!(text(events.as_bytes()).as_deref(), Some("hello"));
        for nothing in [
            &br#"{"choices":[{"index":0,"message":{"content":null,"tool_calls":[]}}]}"#[..],
            b"{}",
            b"",
            b"data: [DONE]\n\n",
        ] {
            assert_eq!(text(nothing), None);
        }
    }
}
