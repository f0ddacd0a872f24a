//! Makes the events of a second engine carry on the answer of the first.

use bytes::{Bytes, BytesMut};

use super::follow::{Opening, StreamFollower};
use super::members::Members;
use crate::sse::{DONE, DataLines, is_done, write_event};

/// Rewrites the stream of the rest: the first answer's `id` and `created`, no second opening event,
/// and a `usage` that counts the text so far as output instead of as prompt.
#[derive(Debug)]
pub struct Seam {
    lines: DataLines,
    opening: Option<Opening>,
    tokens: u64,
}

impl Seam {
    /// The seam behind what `answer` followed.
    pub fn after(answer: &StreamFollower) -> Self {
        Self {
            lines: DataLines::default(),
            opening: answer.opening().cloned(),
            tokens: answer.tokens(),
        }
    }

    /// Reads the next chunk of the rest and returns what goes on to the client.
    pub fn push(&mut self, chunk: &[u8], end: bool) -> Bytes {
        let mut out = BytesMut::new();
        let (opening, tokens) = (self.opening.as_ref(), self.tokens);
        let mut carry_on = |data: &[u8]| {
            if is_done(data) {
                out.extend_from_slice(DONE);
                return;
            }
            match rewritten(data, opening, tokens) {
                Some(event) if !event.is_empty() => write_event(&mut out, &event),
                Some(_) => {}
                None => write_event(&mut out, data),
            }
        };
        self.lines.push(chunk, &mut carry_on);
        if end {
            self.lines.finish(&mut carry_on);
        }
        out.freeze()
    }
}

/// The event as it carries on; empty when the client must not see it, `None` when it is no object.
fn rewritten(data: &[u8], opening: Option<&Opening>, tokens: u64) -> Option<Vec<u8>> {
    let members = Members::read(data)?;
    let Some(opening) = opening else {
        return Some(data.to_vec());
    };
    if members.get("choices").is_some_and(opens) {
        return Some(Vec::new());
    }
    let change = |name: &str, value: &str| match name {
        "id" => Some(opening.id.clone().into_bytes()),
        "created" => Some(opening.created.clone().into_bytes()),
        "usage" => usage(value, tokens),
        _ => None,
    };
    Some(members.write(change, &[]))
}

/// Whether these choices only say who speaks: the first event of a chat stream.
fn opens(choices: &str) -> bool {
    let Ok([choice]) = serde_json::from_str::<[serde_json::Value; 1]>(choices) else {
        return false;
    };
    let delta = &choice["delta"];
    let is_empty = |name: &str| delta[name].as_str().is_none_or(str::is_empty);
    delta["role"].is_string()
        && is_empty("content")
        && is_empty("reasoning_content")
        && is_empty("reasoning")
        && delta["tool_calls"].as_array().is_none_or(Vec::is_empty)
        && choice["finish_reason"].is_null()
}

fn usage(value: &str, tokens: u64) -> Option<Vec<u8>> {
    let mut usage: serde_json::Map<String, serde_json::Value> = serde_json::from_str(value).ok()?;
    let prompt = usage.get("prompt_tokens")?.as_u64()?;
    let moved = tokens.min(prompt);
    let completion = usage.get("completion_tokens").and_then(serde_json::Value::as_u64);
    usage.insert("prompt_tokens".to_owned(), (prompt - moved).into());
    usage.insert(
        "completion_tokens".to_owned(),
        (completion.unwrap_or(0) + moved).into(),
    );
    if let Some(cached) = usage
        .get_mut("prompt_tokens_details")
        .and_then(|details| details.get_mut("cached_tokens"))
        && let Some(count) = cached.as_u64()
    {
        *cached = count.min(prompt - moved).into();
    }
    serde_json::to_vec(&usage).ok()
}
