//! What must hold for any input. The fuzz targets, the property tests and the corpus replay call
//! these functions.

pub mod streams;

use bytes::Bytes;
use llmd_openai::{
    BodyKind, Limits, PromptInput, Rename, RequestFacts, RequestScanner, ResponseMode, ResponseReader,
    ScanError, Usage, splice_model,
};
use serde_json::Value;

/// All kinds of bodies.
pub const KINDS: [BodyKind; 9] = [
    BodyKind::ChatCompletions,
    BodyKind::Completions,
    BodyKind::Embeddings,
    BodyKind::Responses,
    BodyKind::Conversations,
    BodyKind::Images,
    BodyKind::AnthropicMessages,
    BodyKind::VllmGenerate,
    BodyKind::SglangGenerate,
];

/// Below `serde_json`'s own limit of 128, so that both agree on what is too deep.
pub const LIMITS: Limits = Limits {
    max_bytes: 1 << 22,
    max_depth: 100,
};

/// Fuzz input: one byte for the kind, one for the way to cut, then the body.
pub fn request_input(data: &[u8]) {
    if let [kind, seed, body @ ..] = data {
        request(KINDS[usize::from(*kind) % KINDS.len()], body, *seed);
    }
}

/// Fuzz input: one byte for the way to cut, then the body.
pub fn response_input(data: &[u8]) {
    if let [seed, body @ ..] = data {
        response(ResponseMode::Sse, body, *seed);
        response(ResponseMode::Json, body, *seed);
    }
}

/// Cuts of uneven length that follow from `seed`.
pub fn cut(body: &[u8], seed: u8) -> Vec<&[u8]> {
    let mut state = u32::from(seed).wrapping_mul(2_654_435_761) | 1;
    let mut rest = body;
    let mut chunks = Vec::new();
    while !rest.is_empty() {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        let longest = if seed.is_multiple_of(3) { 2 } else { 40 };
        let (chunk, tail) = rest.split_at((state as usize % longest).min(rest.len()));
        chunks.push(chunk);
        rest = tail;
    }
    chunks
}

/// Scans `chunks`.
pub fn scan(kind: BodyKind, chunks: &[&[u8]]) -> Result<RequestFacts, ScanError> {
    let mut scanner = RequestScanner::new(kind, LIMITS);
    for chunk in chunks {
        scanner.push(chunk)?;
    }
    scanner.finish()
}

/// Cuts change nothing, `serde_json` agrees on what JSON is and what the members say, and a spliced
/// body differs in its model only.
pub fn request(kind: BodyKind, body: &[u8], seed: u8) {
    let outcome = scan(kind, &[body]);
    let chunks = cut(body, seed);
    assert_eq!(scan(kind, &chunks), outcome, "cuts changed the outcome");
    if contains(body, b"$serde_json::private") {
        return; // a magic name that `serde_json` reads in its own way
    }
    let parsed = serde_json::from_slice::<Value>(body);
    match (&outcome, &parsed) {
        (Ok(facts), Ok(value)) => {
            agrees(kind, facts, value);
            splice(facts, &chunks, value);
        }
        (Ok(_), Err(error)) => {
            let text = error.to_string();
            let stricter = [
                "number out of range",
                "surrogate",
                "unexpected end of hex escape",
                "recursion",
            ];
            assert!(
                stricter.iter().any(|known| text.contains(known)),
                "only we accept it: {text}"
            );
        }
        (Err(error @ (ScanError::Syntax { .. } | ScanError::TooLarge { .. })), Ok(_)) => {
            panic!("only we refuse it: {error}")
        }
        (Err(ScanError::Invalid(_)), Ok(value)) => assert!(value.is_object()),
        _ => {}
    }
}

fn contains(body: &[u8], needle: &[u8]) -> bool {
    body.windows(needle.len()).any(|window| window == needle)
}

fn agrees(kind: BodyKind, facts: &RequestFacts, value: &Value) {
    assert_eq!(
        facts.model.as_ref().map(|model| model.value.as_str()),
        value["model"].as_str()
    );
    assert_eq!(facts.stream, value["stream"].as_bool().unwrap_or(false));
    let salt = match kind {
        BodyKind::SglangGenerate => &value["extra_key"],
        _ => &value["cache_salt"],
    };
    assert_eq!(facts.cache_salt.as_deref(), salt.as_str());
    match kind {
        BodyKind::ChatCompletions => {
            let cap = value["max_completion_tokens"]
                .as_u64()
                .or(value["max_tokens"].as_u64());
            assert_eq!(facts.max_output_tokens, cap);
            let [prompt] = facts.prompts.as_slice() else {
                panic!("a chat has one prompt")
            };
            let PromptInput::Text(text) = &prompt.input else {
                panic!("a chat prompt is text")
            };
            let (wanted, media_parts) = chat_text(value);
            assert!(text.ends_with(wanted.as_bytes()));
            let tools = &text[..text.len() - wanted.len()];
            if tools.is_empty() {
                assert!(
                    !value["tools"].is_string() && !value["tools"].is_array() && !value["tools"].is_object()
                );
            } else {
                assert_eq!(serde_json::from_slice::<Value>(tools).unwrap(), value["tools"]);
            }
            assert_eq!(facts.media_parts, media_parts);
        }
        BodyKind::AnthropicMessages => {
            let [prompt] = facts.prompts.as_slice() else {
                panic!("a conversation has one prompt")
            };
            assert!(prompt.is_text() && !value["messages"].as_array().expect("messages").is_empty());
        }
        BodyKind::Completions | BodyKind::Images | BodyKind::VllmGenerate | BodyKind::SglangGenerate => {
            let member = match kind {
                BodyKind::VllmGenerate => "token_ids",
                BodyKind::SglangGenerate => "input_ids",
                _ => "prompt",
            };
            let prompt = &value[member];
            let given = facts.prompts.iter().map(|prompt| match &prompt.input {
                PromptInput::Text(text) => Value::from(String::from_utf8(text.clone()).unwrap()),
                PromptInput::Tokens(tokens) => Value::from(tokens.clone()),
            });
            let given: Vec<Value> = given.collect();
            let is_list = prompt[0].is_string() || prompt[0].is_array();
            assert_eq!(
                Value::from(given),
                if is_list {
                    prompt.clone()
                } else {
                    Value::from(vec![prompt.clone()])
                }
            );
        }
        _ => {
            let document = if kind == BodyKind::Conversations {
                &value["items"]
            } else {
                &value["input"]
            };
            if let [prompt] = facts.prompts.as_slice()
                && let PromptInput::Text(raw) = &prompt.input
            {
                assert_eq!(&serde_json::from_slice::<Value>(raw).unwrap(), document);
            }
        }
    }
}

fn chat_text(value: &Value) -> (String, usize) {
    let mut text = String::new();
    let mut media_parts = 0;
    for message in value["messages"].as_array().into_iter().flatten() {
        text += message["role"].as_str().unwrap_or_default();
        text += message["content"].as_str().unwrap_or_default();
        for block in message["content"].as_array().into_iter().flatten() {
            let kind = block["type"].as_str().unwrap_or("text");
            if ["text", "input_text", "output_text", "refusal"].contains(&kind) {
                text += block.as_str().or(block["text"].as_str()).unwrap_or_default();
            } else {
                media_parts += 1;
            }
        }
    }
    (text, media_parts)
}

/// Only the model changes, and all other bytes stay.
fn splice(facts: &RequestFacts, chunks: &[&[u8]], value: &Value) {
    let Some(span) = facts.model.as_ref().and_then(|model| model.span) else {
        return;
    };
    let name = "new \"näme\"\n\\";
    let body: Vec<Bytes> = chunks.iter().map(|chunk| Bytes::copy_from_slice(chunk)).collect();
    let spliced = splice_model(&body, span, name).concat();
    let whole = body.concat();
    assert!(spliced.starts_with(&whole[..span.start]));
    assert!(spliced.ends_with(&whole[span.end..]));
    let mut wanted = value.clone();
    wanted["model"] = name.into();
    assert_eq!(serde_json::from_slice::<Value>(&spliced).unwrap(), wanted);
}

struct Read {
    out: Vec<u8>,
    usage: Usage,
    events: u64,
    done: bool,
}

fn read(mode: ResponseMode, kind: BodyKind, chunks: &[&[u8]], rename: Option<Rename>) -> Read {
    let mut reader = ResponseReader::new(mode, kind, rename);
    let mut out = Vec::new();
    for chunk in chunks {
        reader.push(Bytes::copy_from_slice(chunk), false, &mut out);
    }
    reader.push(Bytes::new(), true, &mut out);
    Read {
        out: out.concat(),
        usage: reader.usage(),
        events: reader.events(),
        done: reader.is_done(),
    }
}

/// Cuts change nothing, without a rename no byte changes, and with one exactly the names do.
pub fn response(mode: ResponseMode, body: &[u8], seed: u8) {
    let kind = KINDS[usize::from(seed) % KINDS.len()];
    let whole = read(mode, kind, &[body], None);
    assert!(whole.out == body, "bytes changed without a rename");
    let chunks = cut(body, seed);
    let renamed = read(mode, kind, &chunks, Rename::new("m", "restored"));
    assert_eq!(renamed.usage, whole.usage, "cuts changed the usage");
    assert_eq!(
        (renamed.events, renamed.done),
        (whole.events, whole.done),
        "cuts changed the events"
    );
    let wanted = restored(body);
    assert_eq!(
        String::from_utf8_lossy(&renamed.out),
        String::from_utf8_lossy(&wanted)
    );
}

/// The leftmost match wins where two overlap (which no JSON has).
fn restored(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = body;
    while let Some(&first) = rest.first() {
        if let Some(tail) = rest.strip_prefix(b"\"model\":\"m\"") {
            out.extend_from_slice(b"\"model\":\"restored\"");
            rest = tail;
        } else if let Some(tail) = rest.strip_prefix(b"\"model\": \"m\"") {
            out.extend_from_slice(b"\"model\": \"restored\"");
            rest = tail;
        } else {
            out.push(first);
            rest = &rest[1..];
        }
    }
    out
}
