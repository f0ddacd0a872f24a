//! The request for the rest of an answer.

use super::follow::StreamFollower;
use super::members::Members;
use crate::BodyKind;

/// Why no request for the rest can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotContinuable {
    /// The client's output cap is used up: nothing is missing but the end.
    #[error("the output cap is reached")]
    AtCap,
    /// The request asks for something whose state the text does not carry.
    #[error("the request sets {0}")]
    Member(&'static str),
    /// The body is not what this API takes.
    #[error("the request body cannot be read")]
    Unreadable,
}

/// Members that rule out a continuation unless they have one of the values listed (raw JSON) or are
/// absent: their meaning depends on more than the text so far.
const RULED_OUT: [(&str, &[&str]); 21] = [
    ("add_generation_prompt", &["true"]),
    ("audio", &[]),
    ("best_of", &["1"]),
    ("continue_final_message", &["false"]),
    ("echo", &["false"]),
    ("functions", &["[]"]),
    ("guided_choice", &[]),
    ("guided_grammar", &[]),
    ("guided_json", &[]),
    ("guided_regex", &[]),
    ("kv_transfer_params", &[]),
    ("logprobs", &["false"]),
    ("n", &["1"]),
    ("prompt_embeds", &[]),
    ("prompt_logprobs", &[]),
    ("return_token_ids", &["false"]),
    ("return_tokens_as_token_ids", &["false"]),
    ("structured_outputs", &[]),
    ("suffix", &["\"\""]),
    ("top_logprobs", &["0"]),
    ("use_beam_search", &["false"]),
];

const CAPS: [&str; 2] = ["max_tokens", "max_completion_tokens"];

/// Whether an answer to this chat request can be asked for in several parts: by text alone, one part continuing the
/// other. `kv_transfer_params` are for the first part.
///
/// # Errors
/// Names the member that rules it out.
pub fn check_continuable(body: &[u8]) -> Result<(), NotContinuable> {
    let members = Members::read(body).ok_or(NotContinuable::Unreadable)?;
    rule_out(&members, Some("kv_transfer_params"))
}

fn rule_out(members: &Members<'_>, except: Option<&str>) -> Result<(), NotContinuable> {
    for (name, harmless) in RULED_OUT {
        let value = members.get(name).filter(|_| except != Some(name));
        if value.is_some_and(|value| !harmless.contains(&value)) {
            return Err(NotContinuable::Member(name));
        }
    }
    let calls_tools = members.get("tools").is_some_and(|tools| tools != "[]");
    if calls_tools && members.get("tool_choice") != Some("\"none\"") {
        return Err(NotContinuable::Member("tools"));
    }
    let format = members.get("response_format");
    let format = format.and_then(|format| Members::read(format.as_bytes()));
    if format.is_some_and(|format| format.get("type") != Some("\"text\"")) {
        return Err(NotContinuable::Member("response_format"));
    }
    Ok(())
}

/// The body of a request for what is missing of the answer that `answer` followed. Caps are lowered by
/// the tokens that arrived, so that the whole answer keeps to them.
pub fn continue_request(
    kind: BodyKind,
    body: &[u8],
    answer: &StreamFollower,
) -> Result<Vec<u8>, NotContinuable> {
    let members = Members::read(body).ok_or(NotContinuable::Unreadable)?;
    rule_out(&members, None)?;
    let tokens = answer.tokens();
    let cap = |name| members.get(name).and_then(|cap| cap.parse::<u64>().ok());
    if CAPS.into_iter().filter_map(cap).any(|cap| cap <= tokens) {
        return Err(NotContinuable::AtCap);
    }
    let text = answer.text();
    if text.is_empty() {
        return Ok(body.to_vec());
    }
    let lowered = |name: &str, value: &str| {
        let number: u64 = value.parse().ok()?;
        (CAPS.contains(&name) || name == "min_tokens")
            .then(|| number.saturating_sub(tokens).to_string().into_bytes())
    };
    match kind {
        BodyKind::ChatCompletions => {
            let messages = members.get("messages").and_then(|list| list.strip_suffix(']'));
            let messages = messages.ok_or(NotContinuable::Unreadable)?;
            if messages.trim_end() == "[" {
                return Err(NotContinuable::Member("messages"));
            }
            let messages = [
                messages.as_bytes(),
                b",{\"role\":\"assistant\",\"content\":\"",
                text,
                b"\"}]",
            ]
            .concat();
            let change = |name: &str, value: &str| match name {
                "messages" => Some(messages.clone()),
                _ => lowered(name, value),
            };
            let added = [
                ("continue_final_message", "true"),
                ("add_generation_prompt", "false"),
            ];
            Ok(members.write(change, &added))
        }
        BodyKind::Completions => {
            let prompt = members.get("prompt").filter(|prompt| prompt.starts_with('"'));
            let prompt = prompt.and_then(|prompt| prompt.strip_suffix('"'));
            let prompt = prompt.ok_or(NotContinuable::Member("prompt"))?;
            let prompt = [prompt.as_bytes(), text, b"\""].concat();
            let change = |name: &str, value: &str| match name {
                "prompt" => Some(prompt.clone()),
                _ => lowered(name, value),
            };
            Ok(members.write(change, &[]))
        }
        _ => Err(NotContinuable::Unreadable),
    }
}
