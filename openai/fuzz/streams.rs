//! What must hold for any stream of events and any gRPC frames.

use llmd_openai::grpc::{self, Method, Prediction, ResponseMessages, Service};
use llmd_openai::{Usage, sse};

use super::{LIMITS, cut};

/// The messages that are read.
pub const SERVICES: [Service; 4] = [
    Service::Vllm(Method::Generate),
    Service::Vllm(Method::Embed),
    Service::Vertex(Prediction::Chat),
    Service::Vertex(Prediction::Raw),
];
const HEAD: usize = 5;
/// Messages of responses above this are passed over.
const LONGEST_RESPONSE: usize = 1 << 20;

/// Fuzz input: one byte for the way to cut, then the stream.
pub fn sse_input(data: &[u8]) {
    if let [seed, stream @ ..] = data {
        events(stream, *seed);
    }
}

/// Fuzz input: one byte for the message, one for the way to cut, then the frames.
pub fn grpc_input(data: &[u8]) {
    if let [service, seed, body @ ..] = data {
        frames(SERVICES[usize::from(*service) % SERVICES.len()], body, *seed);
    }
}

/// Cuts change nothing, and the payloads are those of the stream's lines.
pub fn events(stream: &[u8], seed: u8) {
    let mut lines = sse::DataLines::default();
    let mut found: Vec<Vec<u8>> = Vec::new();
    for chunk in cut(stream, seed) {
        lines.push(chunk, |data| found.push(data.to_vec()));
    }
    lines.finish(|data| found.push(data.to_vec()));
    let wanted: Vec<&[u8]> = stream
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let data = line.strip_prefix(b"data:")?;
            let data = data.strip_prefix(b" ").unwrap_or(data);
            Some(data.strip_suffix(b"\r").unwrap_or(data))
        })
        .collect();
    assert_eq!(found, wanted, "cut payloads");
    assert_eq!(sse::payloads(stream), wanted, "whole payloads");
}

/// A request is its first whole frame; cuts change nothing about a response.
pub fn frames(service: Service, body: &[u8], seed: u8) {
    let outcome = grpc::request(service, body, LIMITS);
    if outcome.is_ok() {
        let end = frame_end(body).expect("only a whole head is read");
        assert_eq!(body[0], 0, "a compressed message was read");
        assert_eq!(
            grpc::request(service, &body[..end], LIMITS),
            outcome,
            "bytes behind the message were read"
        );
        assert!(
            grpc::request(service, &body[..end - 1], LIMITS).is_err(),
            "a message that is cut off was read"
        );
    }
    let (whole, in_one) = respond(service, &[body]);
    let (cut_usage, in_many) = respond(service, &cut(body, seed));
    assert_eq!(cut_usage, whole, "cuts changed the usage");
    assert_eq!((in_one, in_many), (messages(body), messages(body)), "messages");
}

fn respond(service: Service, chunks: &[&[u8]]) -> (Usage, u64) {
    let (mut reader, mut usage) = (ResponseMessages::new(service), Usage::default());
    let messages = chunks.iter().map(|chunk| reader.push(chunk, &mut usage)).sum();
    (usage, messages)
}

/// Where the first frame ends, which may be behind the body.
fn frame_end(body: &[u8]) -> Option<usize> {
    let length = u32::from_be_bytes(body.get(1..HEAD)?.try_into().ok()?);
    Some(HEAD + length as usize)
}

fn messages(mut body: &[u8]) -> u64 {
    let mut seen = 0;
    while let Some(end) = frame_end(body) {
        let is_passed_over = body[0] != 0 || end - HEAD > LONGEST_RESPONSE;
        if end > body.len() {
            return seen + u64::from(is_passed_over);
        }
        seen += 1;
        body = &body[end..];
    }
    seen
}
