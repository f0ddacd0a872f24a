//! The request direction against what a case says.

use std::collections::BTreeSet;

use tonic::Code;

use super::{Failures, Names, headers, metadata, reject, shown, text};
use crate::case::{Destination, DestinationRule, Outcome, Route, StreamEnd};
use crate::transcript::{RequestTranscript, Stop, find, metadata as metadata_of, to_json};

/// Compares a transcript with an outcome.
pub fn check(transcript: &RequestTranscript, expected: &Outcome, names: &Names<'_>) -> Failures {
    let Outcome {
        route,
        reject: refusal,
        stream,
        silent,
    } = expected;
    if *silent {
        return match (&transcript.stop, transcript.answers.is_empty()) {
            (Stop::Silence, true) => Vec::new(),
            _ => vec![format!("something came: {}", summary(transcript))],
        };
    }
    if let Some(refusal) = refusal {
        return match transcript.immediate() {
            Some(actual) => reject(actual, refusal, names),
            None => vec![format!(
                "no immediate response with status {}: {}",
                refusal.status,
                summary(transcript)
            )],
        };
    }
    if let Some(end) = stream {
        let mut failures = stream_end(&transcript.stop, end, names);
        if let Some(route) = route {
            failures.extend(routed(transcript, route, names));
        }
        return failures;
    }
    if transcript.stop != Stop::Complete || transcript.immediate().is_some() {
        return vec![format!("the request is not routed: {}", summary(transcript))];
    }
    routed(transcript, route.as_ref().unwrap_or(&Route::default()), names)
}

fn routed(transcript: &RequestTranscript, expected: &Route, names: &Names<'_>) -> Failures {
    let Some(destination) = transcript.destination() else {
        return vec![format!("no destination: {}", summary(transcript))];
    };
    let mut failures = goes_to(&destination, expected.to.as_ref(), names);
    let set = transcript.set_headers();
    failures.extend(headers(&set, &expected.headers, names));
    let removed: Vec<&str> = transcript
        .mutation()
        .iter()
        .flat_map(|mutation| &mutation.remove_headers)
        .map(String::as_str)
        .collect();
    for name in &expected.removed {
        if !removed.contains(&name.as_str()) {
            failures.push(format!("header {name} is not removed"));
        }
    }
    for name in &expected.echoed {
        if find(&set, name) != find(&transcript.headers, name) {
            failures.push(format!("header {name} does not come back as it was"));
        }
    }
    if let Some(head) = transcript.head() {
        let value = |namespace: &str, key: &str| metadata_of(head, namespace, key).map(to_json);
        failures.extend(metadata(value, &expected.metadata, names));
    }
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
        Ok(wanted) => failures.push(format!("the body is {}, not {}", shown(&body), shown(&wanted))),
        Err(error) => failures.push(format!("{error:#}")),
    }
    if let Some(messages) = expected.messages
        && chunks.len() != messages
    {
        failures.push(format!(
            "the body comes in {} messages, not {messages}",
            chunks.len()
        ));
    }
    failures
}

fn goes_to(destination: &str, expected: Option<&Destination>, names: &Names<'_>) -> Failures {
    let addresses = |members: &[String]| -> Result<Vec<String>, String> {
        members.iter().map(|member| names.address(member)).collect()
    };
    let named = |destination: &str| {
        let parts = destination.split(',').map(|part| {
            let member = names.members.iter().find(|(_, address)| address == part);
            member.map_or(part, |(name, _)| name)
        });
        parts.collect::<Vec<_>>().join(",")
    };
    let call = |name: &str| names.address(&format!("{name}.destination"));
    let is_met = match expected {
        None => Ok(destination
            .split(',')
            .all(|part| names.members.iter().any(|(_, address)| address == part))),
        Some(Destination::Member(member)) => names.address(member).map(|address| destination == address),
        Some(Destination::Rule(rule)) => match rule {
            DestinationRule::OneOf(members) => {
                addresses(members).map(|members| members.iter().any(|member| member == destination))
            }
            DestinationRule::List(members) => {
                addresses(members).map(|members| destination == members.join(","))
            }
            DestinationRule::Set(members) => addresses(members).map(|members| {
                let wanted: BTreeSet<&str> = members.iter().map(String::as_str).collect();
                let actual: BTreeSet<&str> = destination.split(',').collect();
                wanted == actual && destination.split(',').count() == members.len()
            }),
            DestinationRule::SameAs(other) => call(other).map(|other| destination == other),
            DestinationRule::NotAs(other) => call(other).map(|other| destination != other),
        },
    };
    match is_met {
        Ok(true) => Vec::new(),
        Ok(false) => {
            let wanted = expected.map_or_else(|| "a member".to_owned(), |to| format!("{to:?}"));
            vec![format!("goes to {}, not {wanted}", named(destination))]
        }
        Err(error) => vec![error],
    }
}

fn stream_end(stop: &Stop, expected: &StreamEnd, names: &Names<'_>) -> Failures {
    let Stop::Ended(code, message) = stop else {
        return vec![format!(
            "the stream does not end with {}: {stop:?}",
            expected.code
        )];
    };
    let mut failures = Vec::new();
    if format!("{code:?}") != expected.code {
        failures.push(format!(
            "the stream ends with {code:?} `{message}`, not {}",
            expected.code
        ));
    }
    if let Some(wanted) = &expected.message {
        failures.extend(text("the stream's message", message, wanted, names));
    }
    failures
}

/// A transcript in a line.
fn summary(transcript: &RequestTranscript) -> String {
    let answers = transcript.answers.len();
    match (&transcript.stop, transcript.immediate()) {
        (_, Some(response)) => format!(
            "an immediate response {} {}",
            response.status.as_ref().map_or(0, |status| status.code),
            shown(&response.body)
        ),
        (Stop::Complete, None) => format!(
            "it goes to {}",
            transcript.destination().as_deref().unwrap_or("nowhere")
        ),
        (Stop::Ended(Code::Ok, _), None) => format!("the stream ended after {answers} answers"),
        (Stop::Ended(code, message), None) => {
            format!("the stream ended with {code:?} `{message}` after {answers} answers")
        }
        (Stop::Silence, None) => format!("nothing more came after {answers} answers"),
    }
}
