//! The response direction against what a case says.

use super::{Failures, Names, headers, metadata, reject, shown};
use crate::case::ResponseOutcome;
use crate::transcript::{ResponseTranscript, Stop, to_json};

/// Compares a transcript with an outcome.
pub fn check(transcript: &ResponseTranscript, expected: &ResponseOutcome, names: &Names<'_>) -> Failures {
    if expected.skipped {
        return match (&transcript.stop, transcript.answers.is_empty()) {
            (Stop::Ended(tonic::Code::Ok, _), true) => Vec::new(),
            (stop, _) => vec![format!(
                "the stream did not end with OK after the request: {stop:?}"
            )],
        };
    }
    if let Some(refusal) = &expected.reject {
        return match transcript.immediate() {
            Some(actual) => reject(actual, refusal, names),
            None => vec![format!("no immediate response with status {}", refusal.status)],
        };
    }
    if expected.held {
        return match (&transcript.stop, transcript.chunks().is_empty()) {
            (Stop::Silence, true) => Vec::new(),
            (stop, _) => vec![format!("the body is not held back: {stop:?}")],
        };
    }
    let mut failures = Vec::new();
    if transcript.stop != Stop::Complete || transcript.immediate().is_some() {
        failures.push(format!(
            "the response is not passed on: {:?} after {} answers",
            transcript.stop,
            transcript.answers.len()
        ));
    }
    failures.extend(headers(&transcript.set_headers(), &expected.headers, names));
    let chunks = transcript.chunks();
    let body = chunks.iter().fold(Vec::new(), |mut body, chunk| {
        body.extend_from_slice(&chunk.body);
        body
    });
    let wanted = match &expected.body {
        Some(body) => body.bytes(&names.resolve),
        None => Ok(transcript.body.clone()),
    };
    match wanted {
        Ok(wanted) if wanted == body => {}
        Ok(wanted) => failures.push(format!(
            "the response's body is {}, not {}",
            shown(&body),
            shown(&wanted)
        )),
        Err(error) => failures.push(format!("{error:#}")),
    }
    if let Some(messages) = expected.messages
        && chunks.len() != messages
    {
        failures.push(format!(
            "the response's body comes in {} messages, not {messages}",
            chunks.len()
        ));
    }
    let value = |namespace: &str, key: &str| transcript.metadata(namespace, key).map(to_json);
    failures.extend(metadata(value, &expected.metadata, names));
    failures
}
