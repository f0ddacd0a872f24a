//! Connector `shared-storage`: engines find blocks in a storage that they share; nobody is told where they are.
//!
//! A request with `cache_hit_threshold` is decoded first. An engine that has less of the prompt than that refuses with
//! the finish reason `cache_threshold`; only then the prompt is computed elsewhere. Source: llm-d-router
//! `pkg/sidecar/proxy/connector_shared_storage.go`, vllm-project/vllm#24256. By document only.

use bytes::Bytes;
use llmd_openai::{Edit, EditError, edit};
use serde::Deserialize;
use serde_json::value::RawValue;

const THRESHOLD: &str = "cache_hit_threshold";
const REFUSED: &str = "cache_threshold";

/// The body of the prefill leg.
pub(crate) fn prefill(body: &[Bytes]) -> Result<Vec<Bytes>, EditError> {
    edit(
        body,
        &[
            Edit::set(&["max_tokens"], "1"),
            Edit::set(&["max_completion_tokens"], "1"),
            Edit::set(&["stream"], "false"),
            Edit::clear(&["stream_options"]),
            Edit::set(&[THRESHOLD], "0"),
        ],
    )
}

/// The body of the decode leg after it: no part of the prompt is too little.
pub(crate) fn decode(body: &[Bytes]) -> Result<Vec<Bytes>, EditError> {
    edit(body, &[Edit::set(&[THRESHOLD], "0")])
}

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    cache_hit_threshold: Option<&'a RawValue>,
}

/// Whether the decode engine is asked first.
pub(crate) fn decodes_first(body: &[Bytes]) -> bool {
    let whole = body.concat();
    serde_json::from_slice::<Request<'_>>(&whole).is_ok_and(|request| request.cache_hit_threshold.is_some())
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    finish_reason: Option<String>,
    delta: Option<Said>,
    text: Option<String>,
}

#[derive(Deserialize)]
struct Said {
    content: Option<String>,
}

/// What the beginning of an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beginning {
    /// The engine has too little of the prompt.
    Refused,
    /// It generates.
    Generates,
    /// It may do either.
    Open,
}

/// Reads the beginning of an answer, a stream of events or JSON.
pub(crate) fn beginning(is_stream: bool, bytes: &[u8]) -> Beginning {
    if !is_stream {
        return match serde_json::from_slice::<Answer>(bytes) {
            Ok(answer) if answer.choices.iter().any(Choice::is_refused) => Beginning::Refused,
            Err(error) if error.is_eof() => Beginning::Open,
            Ok(_) | Err(_) => Beginning::Generates,
        };
    }
    // The last line may be unfinished.
    let whole = bytes.rsplitn(2, |byte| *byte == b'\n').nth(1).unwrap_or_default();
    let events = whole
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.strip_prefix(b"data:"));
    for event in events {
        // Anything else than an answer ends the wait: `[DONE]`, an error.
        let Ok(answer) = serde_json::from_slice::<Answer>(event) else {
            return Beginning::Generates;
        };
        if answer.choices.iter().any(Choice::is_refused) {
            return Beginning::Refused;
        }
        if answer.choices.iter().any(Choice::says_something) {
            return Beginning::Generates;
        }
    }
    Beginning::Open
}

impl Choice {
    fn is_refused(&self) -> bool {
        self.finish_reason.as_deref() == Some(REFUSED)
    }

    fn says_something(&self) -> bool {
        let content = self.delta.as_ref().and_then(|delta| delta.content.as_deref());
        let text = content.or(self.text.as_deref());
        self.finish_reason.is_some() || text.is_some_and(|text| !text.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_seen_as_soon_as_it_is_there() {
        let role = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n";
        let refused = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"cache_threshold\"}]}\n\n";
        let said = "data: {\"choices\":[{\"delta\":{\"content\":\"x\"},\"finish_reason\":null}]}\n\n";
        for (stream, expected) in [
            (String::new(), Beginning::Open),
            (role.to_owned(), Beginning::Open),
            (format!("{role}{}", &refused[..30]), Beginning::Open),
            (format!("{role}{refused}"), Beginning::Refused),
            (format!("{role}{said}"), Beginning::Generates),
            ("data: [DONE]\n\n".to_owned(), Beginning::Generates),
        ] {
            assert_eq!(beginning(true, stream.as_bytes()), expected, "{stream}");
        }
        let whole = br#"{"choices":[{"finish_reason":"cache_threshold","message":{"content":""}}]}"#;
        assert_eq!(beginning(false, whole), Beginning::Refused);
        assert_eq!(beginning(false, &whole[..20]), Beginning::Open);
        assert_eq!(
            beginning(false, b"{\"choices\":[{\"finish_reason\":\"stop\"}]}"),
            Beginning::Generates
        );
        assert_eq!(beginning(false, b"no JSON"), Beginning::Generates);
    }

    #[test]
    fn only_a_threshold_of_the_request_asks_the_decode_engine_first() {
        let first = |body: &'static str| decodes_first(&[Bytes::from_static(body.as_bytes())]);
        assert!(first("{\"cache_hit_threshold\":0.8}"));
        assert!(!first("{\"prompt\":\"cache_hit_threshold\"}") && !first("no JSON"));
    }
}
