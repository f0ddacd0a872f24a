//! Throughput of the body scanner and the response reader. Budget: 1 GB/s of chat body on long text.

use bytes::Bytes;
use divan::{Bencher, black_box, counter::BytesCount};
use llmd_openai::{BodyKind, Limits, Rename, RequestScanner, ResponseMode, ResponseReader};

fn main() {
    divan::main();
}

/// A chat of about `size` bytes: messages of 4 KB of prose with an escaped line end every 90 bytes.
fn chat(size: usize) -> Vec<u8> {
    let line = "the quick brown fox jumps over the lazy dog while the router counts tokens, one by one\\n";
    let mut messages = vec![r#"{"role":"system","content":"be brief"}"#.to_owned()];
    let mut left = size.saturating_sub(120);
    while left > 0 {
        let text = line.repeat(4096 / line.len() + 1);
        let text = &text[..left.min(4048) / line.len() * line.len()];
        messages.push(format!(r#"{{"role":"user","content":"{text}"}}"#));
        left = left.saturating_sub(text.len().max(line.len()) + 30);
    }
    format!(
        r#"{{"model":"some/model","messages":[{}],"max_tokens":64,"stream":true}}"#,
        messages.join(",")
    )
    .into_bytes()
}

#[divan::bench(args = [1_000, 62_000, 220_000, 1_200_000])]
fn chat_body(bencher: Bencher<'_, '_>, size: usize) {
    let body = chat(size);
    bencher.counter(BytesCount::new(body.len())).bench(|| {
        let mut scanner = RequestScanner::new(BodyKind::ChatCompletions, Limits::default());
        for chunk in body.chunks(16 * 1024) {
            scanner.push(black_box(chunk)).expect("a valid body");
        }
        scanner.finish().expect("a valid body")
    });
}

const EVENT: &str = "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"some/model\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" token\"},\"finish_reason\":null}],\"usage\":null}\n\n";

/// One event per chunk, as engines stream them.
#[divan::bench(args = [false, true])]
fn stream_event(bencher: Bencher<'_, '_>, rename: bool) {
    let event = Bytes::from_static(EVENT.as_bytes());
    let rename = || {
        if rename {
            Rename::new("some/model", "my-model")
        } else {
            None
        }
    };
    let mut reader = ResponseReader::new(ResponseMode::Sse, BodyKind::ChatCompletions, rename());
    let mut out = Vec::new();
    bencher.counter(BytesCount::new(event.len())).bench_local(|| {
        out.clear();
        reader.push(black_box(event.clone()), false, &mut out);
        out.len()
    });
}

/// A document of 220 KB without rename.
#[divan::bench]
fn json_document(bencher: Bencher<'_, '_>) {
    let body = Bytes::from(chat(220_000));
    bencher.counter(BytesCount::new(body.len())).bench(|| {
        let mut reader = ResponseReader::new(ResponseMode::Json, BodyKind::ChatCompletions, None);
        let mut out = Vec::new();
        reader.push(black_box(body.clone()), true, &mut out);
        (out, reader.usage())
    });
}
