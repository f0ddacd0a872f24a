//! Rules of the wire that hold for every stream (sheet `epp-core` §2 to §6).

use std::collections::BTreeSet;

use super::Failures;
use crate::case::{End, ResponseEnd};
use crate::transcript::{
    DESTINATION, DROPPED, LB, RequestTranscript, ResponseTranscript, Stop, chunk, common, find, metadata,
    set_headers, to_json,
};
use crate::wire::{Answer, BodyChange, CommonAnswer, HeaderMutation, ImmediateResponse, ProcessingResponse};

/// Longest body message a proxy has to take.
const MAX_CHUNK: usize = 64 * 1024;

/// Headers that a picker reads and never sends back.
const INPUTS: [&str; 15] = [
    "x-llm-d-inference-fairness-id",
    "x-gateway-inference-fairness-id",
    "x-llm-d-inference-objective",
    "x-gateway-inference-objective",
    "x-llm-d-model-name-rewrite",
    "x-gateway-model-name-rewrite",
    "x-llm-d-slo-ttft-ms",
    "x-slo-ttft-ms",
    "x-llm-d-slo-tpot-ms",
    "x-slo-tpot-ms",
    "x-llm-d-video-fps",
    "x-llm-d-video-duration-seconds",
    "x-llm-d-video-resolution",
    "x-gateway-destination-endpoint-subset",
    "x-gateway-destination-endpoint-served",
];

/// Headers that a picker adds by itself.
const OUTPUTS: [&str; 11] = [
    DESTINATION,
    "content-length",
    "x-request-id",
    "traceparent",
    "tracestate",
    "baggage",
    "x-prefiller-host-port",
    "x-encoder-hosts-ports",
    "x-data-parallel-host-port",
    "x-kv-cache-source-host-port",
    "x-session-token",
];

/// Values of `x-llm-d-request-dropped-reason`.
const REASONS: [&str; 8] = [
    "rejected-saturated",
    "rejected-no-endpoints",
    "rejected-ttl-expired",
    "rejected-context-cancelled",
    "rejected-shutting-down",
    "evicted",
    "evicted-queue-pressure",
    "evicted-priority",
];

/// Codes in refusals, with their statuses.
const CODES: [(&str, i32); 9] = [
    ("BadRequest", 400),
    ("Unauthorized", 401),
    ("Forbidden", 403),
    ("NotFound", 404),
    ("PreconditionFailed", 412),
    ("PayloadTooLarge", 413),
    ("ResourceExhausted", 429),
    ("Internal", 500),
    ("ServiceUnavailable", 503),
];

/// What a stream breaks in the request direction. `extra`: headers that the case expects to be set.
pub fn request(transcript: &RequestTranscript, extra: &BTreeSet<String>) -> Failures {
    let mut failures = Failures::new();
    order(&transcript.answers, &mut failures);
    for answer in &transcript.answers {
        match &answer.answer {
            Some(Answer::RequestHeaders(head)) => {
                request_head(transcript, answer, head, extra, &mut failures);
            }
            Some(Answer::RequestBody(body)) => body_answer(body, &mut failures),
            Some(Answer::Immediate(response)) => immediate(response, &mut failures),
            Some(Answer::RequestTrailers(_)) => {}
            Some(_) => failures.push("an answer of the response direction came for a request".to_owned()),
            None => failures.push("an answer without content".to_owned()),
        }
    }
    let ends = transcript
        .chunks()
        .iter()
        .filter(|chunk| chunk.end_of_stream)
        .count();
    let has_ended = transcript.stop == Stop::Complete && transcript.immediate().is_none();
    match transcript.end {
        End::Headers if !transcript.chunks().is_empty() => {
            failures.push("a body came for a request without one".to_owned());
        }
        End::Trailers if ends > 0 => {
            failures.push("a body chunk ends the stream although trailers follow".to_owned());
        }
        End::Body | End::Twice if has_ended && ends != 1 => {
            failures.push(format!("{ends} body chunks end the body"));
        }
        _ => {}
    }
    if let Some((_, before)) = transcript.chunks().split_last()
        && before.iter().any(|chunk| chunk.end_of_stream)
    {
        failures.push("a chunk that is not the last ends the body".to_owned());
    }
    if transcript.immediate().is_some()
        && !matches!(transcript.answers.last(), Some(last) if is_immediate(last))
    {
        failures.push("something came after the immediate response".to_owned());
    }
    failures
}

/// What a stream breaks in the response direction.
pub fn response(transcript: &ResponseTranscript) -> Failures {
    let mut failures = Failures::new();
    order(&transcript.answers, &mut failures);
    for answer in &transcript.answers {
        match &answer.answer {
            Some(Answer::ResponseHeaders(head)) => {
                let Some(changes) = common(head) else { continue };
                if changes.clear_route_cache {
                    failures.push("clear_route_cache in the response direction".to_owned());
                }
                head_changes_no_body(head, &mut failures);
                mutation(changes.header_mutation.as_ref(), &mut failures);
                let set = set_headers(changes.header_mutation.as_ref());
                for (name, value) in &set {
                    if INPUTS.contains(&name.as_str()) {
                        failures.push(format!(
                            "header {name}: {value} is for the picker, not for clients"
                        ));
                    }
                }
                if find(&set, "x-went-into-resp-headers") != Some("true") {
                    failures.push("the response's head has no x-went-into-resp-headers: true".to_owned());
                }
            }
            Some(Answer::ResponseBody(body)) => body_answer(body, &mut failures),
            Some(Answer::Immediate(response)) => immediate(response, &mut failures),
            Some(Answer::ResponseTrailers(_)) => {}
            Some(_) => failures.push("an answer of the request direction came for a response".to_owned()),
            None => failures.push("an answer without content".to_owned()),
        }
    }
    let chunks = transcript.chunks();
    let ends = chunks.iter().filter(|chunk| chunk.end_of_stream).count();
    match transcript.end {
        ResponseEnd::Body
            if transcript.stop == Stop::Complete && transcript.immediate().is_none() && ends != 1 =>
        {
            failures.push(format!("{ends} chunks end the response"));
        }
        ResponseEnd::Trailers | ResponseEnd::Never if ends > 0 => {
            failures.push("a chunk ends a response that has not ended".to_owned());
        }
        _ => {}
    }
    if let Some((_, before)) = chunks.split_last()
        && before.iter().any(|chunk| chunk.end_of_stream)
    {
        failures.push("a chunk that is not the last ends the response".to_owned());
    }
    failures
}

/// Head, body, trailers; one head and one trailers answer.
fn order(answers: &[ProcessingResponse], failures: &mut Failures) {
    let mut reached = 0;
    for answer in answers {
        let (rank, name) = match &answer.answer {
            Some(Answer::RequestHeaders(_) | Answer::ResponseHeaders(_)) => (1, "head"),
            Some(Answer::RequestBody(_) | Answer::ResponseBody(_)) => (2, "body"),
            Some(Answer::RequestTrailers(_) | Answer::ResponseTrailers(_)) => (3, "trailers"),
            Some(Answer::Immediate(_)) | None => continue,
        };
        if rank < reached {
            failures.push(format!("the answer to the {name} comes too late"));
        } else if rank == reached && rank != 2 {
            failures.push(format!("the {name} is answered twice"));
        } else if rank > 1 && reached == 0 {
            failures.push(format!(
                "the answer to the {name} comes before the one to the head"
            ));
        }
        reached = reached.max(rank);
    }
}

fn request_head(
    transcript: &RequestTranscript,
    answer: &ProcessingResponse,
    head: &CommonAnswer,
    extra: &BTreeSet<String>,
    failures: &mut Failures,
) {
    let Some(changes) = common(head) else {
        failures.push("the answer to the head changes nothing".to_owned());
        return;
    };
    if !changes.clear_route_cache {
        failures.push("the answer to the head has no clear_route_cache".to_owned());
    }
    head_changes_no_body(head, failures);
    mutation(changes.header_mutation.as_ref(), failures);
    let set = set_headers(changes.header_mutation.as_ref());
    destination(&set, changes.header_mutation.as_ref(), answer, failures);
    for (name, value) in &set {
        if INPUTS.contains(&name.as_str()) || name == DROPPED {
            failures.push(format!("header {name} belongs to the router and is not sent on"));
            continue;
        }
        let is_echo = transcript
            .headers
            .iter()
            .any(|(other, sent)| other.eq_ignore_ascii_case(name) && sent == value);
        if !is_echo && !OUTPUTS.contains(&name.as_str()) && !extra.contains(name) {
            failures.push(format!("header {name}: {value} comes from nowhere"));
        }
    }
    let mutation = changes.header_mutation.iter();
    for name in mutation.flat_map(|mutation| &mutation.remove_headers) {
        let was_sent = find(&transcript.headers, name).is_some();
        if name.starts_with(':') || name.eq_ignore_ascii_case("host") || !was_sent {
            failures.push(format!("header {name} cannot be removed"));
        }
    }
    let length = find(&set, "content-length");
    let streamed: usize = transcript.chunks().iter().map(|chunk| chunk.body.len()).sum();
    match length {
        Some(_) if transcript.end == End::Headers => {
            failures.push("a request without body has a Content-Length".to_owned());
        }
        Some(length) if transcript.stop == Stop::Complete && length != streamed.to_string() => {
            failures.push(format!(
                "Content-Length is {length}, the body has {streamed} bytes"
            ));
        }
        _ => {}
    }
}

/// The destination is set once, is a list of addresses, and is the same in the metadata.
fn destination(
    set: &[(String, String)],
    mutation: Option<&HeaderMutation>,
    answer: &ProcessingResponse,
    failures: &mut Failures,
) {
    let destinations: Vec<&str> = set
        .iter()
        .filter(|(name, _)| name == DESTINATION)
        .map(|(_, value)| value.as_str())
        .collect();
    let [destination] = destinations[..] else {
        failures.push(format!("{DESTINATION} is set {} times", destinations.len()));
        return;
    };
    if destination
        .split(',')
        .any(|part| part.parse::<std::net::SocketAddr>().is_err())
    {
        failures.push(format!("{DESTINATION} `{destination}` is no list of addresses"));
    }
    let options = mutation.iter().flat_map(|mutation| &mutation.set_headers);
    let option = options.into_iter().find(|option| {
        option
            .header
            .as_ref()
            .is_some_and(|header| header.key.eq_ignore_ascii_case(DESTINATION))
    });
    if let Some(option) = option
        && matches!(option.append_action, 1 | 3)
    {
        failures.push(format!("{DESTINATION} does not replace what a client sent"));
    }
    let in_metadata = metadata(answer, LB, DESTINATION).map(to_json);
    if in_metadata.as_ref().and_then(serde_json::Value::as_str) != Some(destination) {
        failures.push(format!(
            "{DESTINATION} is `{destination}` as header and {} in the metadata",
            in_metadata.map_or_else(|| "not there".to_owned(), |value| value.to_string())
        ));
    }
}

/// Set headers have their values where Envoy reads them and replace.
fn mutation(mutation: Option<&HeaderMutation>, failures: &mut Failures) {
    for option in mutation.iter().flat_map(|mutation| &mutation.set_headers) {
        let Some(header) = &option.header else {
            failures.push("a header change without header".to_owned());
            continue;
        };
        if header.key.is_empty() {
            failures.push("a header without name is set".to_owned());
        }
        if header.raw_value.is_empty() && !header.value.is_empty() {
            failures.push(format!("header {} has its value as text, not raw", header.key));
        }
        if option.append == Some(true) {
            failures.push(format!("header {} is appended", header.key));
        }
    }
}

fn head_changes_no_body(answer: &CommonAnswer, failures: &mut Failures) {
    let Some(changes) = common(answer) else { return };
    if changes.status != 0 {
        failures.push("the answer to a head has the status CONTINUE_AND_REPLACE".to_owned());
    }
    if changes.body_mutation.is_some() {
        failures.push("the answer to a head changes the body".to_owned());
    }
}

fn body_answer(answer: &CommonAnswer, failures: &mut Failures) {
    let Some(changes) = common(answer) else {
        failures.push("the answer to a body has no chunk: the proxy would drop the bytes".to_owned());
        return;
    };
    if changes.clear_route_cache {
        failures.push("clear_route_cache in the answer to a body".to_owned());
    }
    if changes.status != 0 {
        failures.push("the answer to a body has the status CONTINUE_AND_REPLACE".to_owned());
    }
    let change = changes
        .body_mutation
        .as_ref()
        .and_then(|mutation| mutation.change.as_ref());
    match change {
        Some(BodyChange::Streamed(_)) => {}
        Some(BodyChange::Body(_)) => {
            failures.push("`body` is used instead of `streamed_response`".to_owned());
        }
        Some(BodyChange::Clear(_)) => {
            failures.push("`clear_body` is used instead of `streamed_response`".to_owned());
        }
        None => failures.push("the answer to a body has no chunk: the proxy would drop the bytes".to_owned()),
    }
    if let Some(chunk) = chunk(answer)
        && chunk.body.len() > MAX_CHUNK
    {
        failures.push(format!(
            "a chunk of {} bytes is longer than 64 KiB",
            chunk.body.len()
        ));
    }
}

fn is_immediate(answer: &ProcessingResponse) -> bool {
    matches!(answer.answer, Some(Answer::Immediate(_)))
}

/// A refusal has a status, a code that fits, and a reason that is known.
fn immediate(response: &ImmediateResponse, failures: &mut Failures) {
    let status = response.status.as_ref().map_or(0, |status| status.code);
    if !(400..600).contains(&status) {
        failures.push(format!("an immediate response has the status {status}"));
    }
    let body = String::from_utf8_lossy(&response.body);
    match body
        .strip_prefix("inference error: ")
        .and_then(|rest| rest.split_once(" - "))
    {
        Some((code, _)) if CODES.contains(&(code, status)) => {}
        Some((code, _)) => failures.push(format!("the code {code} does not belong to the status {status}")),
        None if body == "request evicted by flow control" => {}
        None => failures.push(format!(
            "a refusal says `{body}`, not `inference error: CODE - …`"
        )),
    }
    mutation(response.headers.as_ref(), failures);
    for (name, value) in set_headers(response.headers.as_ref()) {
        if name != DROPPED {
            failures.push(format!("a refusal sets the header {name}"));
        } else if !REASONS.contains(&value.as_str()) {
            failures.push(format!("{DROPPED} is `{value}`, which is no known reason"));
        }
    }
}
