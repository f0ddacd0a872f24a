//! Response bodies, byte for byte in vLLM 0.32's member order (members that are always null left out).

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use serde_json::json;

use super::answer::{Answer, StopReason};
use super::request::{Kind, StreamOptions};
use crate::engine::FinishReason;
use crate::transfer::encodings::Encodings;
use crate::transfer::params::Answered;

/// What all chunks of a response share.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// Endpoint.
    pub kind: Kind,
    /// Response id, prefix included.
    pub id: String,
    /// Unix seconds.
    pub created: u64,
    /// Model name as the client asked for it.
    pub model: Arc<str>,
    /// What the stream reports.
    pub options: StreamOptions,
}

/// Token counts of a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Prompt tokens of all prompts.
    pub prompt: usize,
    /// Generated tokens of all choices.
    pub completion: usize,
    /// Prompt tokens from the prefix cache.
    pub cached: usize,
}

/// The stamp vLLM puts on responses, ours.
pub const FINGERPRINT: &str = concat!("llmd-sim-", env!("CARGO_PKG_VERSION"));

fn stop_reason(reason: Option<&StopReason>) -> serde_json::Value {
    match reason {
        Some(StopReason::Text(text)) => json!(text),
        Some(StopReason::Token(token)) => json!(token),
        None => json!(null),
    }
}

/// The body of a response that is not streamed; `prefixes` are prompts to repeat (`echo`), one per answer, `blocks`
/// and `encodings` those that another engine is to read.
pub fn full(
    envelope: &Envelope,
    answers: &[Answer],
    prefixes: Option<&[String]>,
    usage: Usage,
    blocks: Option<&Answered>,
    encodings: Option<&Encodings>,
) -> Vec<u8> {
    let choices: Vec<_> = answers
        .iter()
        .enumerate()
        .map(|(index, answer)| {
            let stop_reason = stop_reason(answer.stop_reason.as_ref());
            let finish_reason = answer.finish.as_str();
            match envelope.kind {
                Kind::Chat => json!({
                    "index": index,
                    "message": {"role": "assistant", "content": answer.text, "refusal": null, "annotations": null, "audio": null,
                        "function_call": null, "reasoning": null},
                    "logprobs": null, "finish_reason": finish_reason, "stop_reason": stop_reason,
                }),
                Kind::Completion => {
                    let prefix = prefixes.map_or("", |prefixes| prefixes[index].as_str());
                    json!({
                        "index": index, "text": format!("{prefix}{}", answer.text),
                        "logprobs": null, "finish_reason": finish_reason, "stop_reason": stop_reason,
                    })
                }
            }
        })
        .collect();
    let object = match envelope.kind {
        Kind::Chat => "chat.completion",
        Kind::Completion => "text_completion",
    };
    let mut body = json!({
        "id": envelope.id, "object": object, "created": envelope.created, "model": &*envelope.model, "choices": choices,
        "service_tier": null, "system_fingerprint": FINGERPRINT,
        "usage": {"prompt_tokens": usage.prompt, "total_tokens": usage.prompt + usage.completion,
            "completion_tokens": usage.completion, "prompt_tokens_details": {"cached_tokens": usage.cached}},
    });
    if let Some(blocks) = blocks {
        body["kv_transfer_params"] = json!(blocks);
    }
    if let Some(encodings) = encodings {
        body["ec_transfer_params"] = json!(encodings);
    }
    body.to_string().into_bytes()
}

/// Writes the events of one stream without building a tree per chunk.
#[derive(Debug)]
pub struct ChunkWriter {
    head: String,
    kind: Kind,
    options: StreamOptions,
}

impl ChunkWriter {
    /// A writer for one response.
    pub fn new(envelope: &Envelope) -> Self {
        let object = match envelope.kind {
            Kind::Chat => "chat.completion.chunk",
            Kind::Completion => "text_completion",
        };
        let head = format!(
            "data: {{\"id\":{},\"object\":\"{object}\",\"created\":{},\"model\":{},\"choices\":[",
            json!(envelope.id),
            envelope.created,
            json!(&*envelope.model)
        );
        Self {
            head,
            kind: envelope.kind,
            options: envelope.options,
        }
    }

    /// The first event of a chat choice.
    pub fn role(&self, out: &mut BytesMut, index: usize, usage: Usage) {
        if self.kind == Kind::Chat {
            out.put_slice(self.head.as_bytes());
            let _ = write!(
                out,
                "{{\"index\":{index},\"delta\":{{\"role\":\"assistant\",\"content\":\"\"}},\"logprobs\":null,\"finish_reason\":null}}]"
            );
            self.tail(out, usage);
        }
    }

    /// Text of a choice, with its end on the last event.
    pub fn text(
        &self,
        out: &mut BytesMut,
        index: usize,
        text: &str,
        end: Option<(FinishReason, Option<&StopReason>)>,
        usage: Usage,
    ) {
        out.put_slice(self.head.as_bytes());
        let _ = match self.kind {
            Kind::Chat => write!(out, "{{\"index\":{index},\"delta\":{{\"content\":"),
            Kind::Completion => write!(out, "{{\"index\":{index},\"text\":"),
        };
        // Writing into memory cannot fail; the type that says so is not worth a branch per chunk.
        let _ = serde_json::to_writer((&mut *out).writer(), text);
        if self.kind == Kind::Chat {
            out.put_u8(b'}');
        }
        match end {
            None => out.put_slice(b",\"logprobs\":null,\"finish_reason\":null}]"),
            Some((finish, reason)) => {
                let (finish, reason) = (finish.as_str(), stop_reason(reason));
                let _ = write!(
                    out,
                    ",\"logprobs\":null,\"finish_reason\":\"{finish}\",\"stop_reason\":{reason}}}]"
                );
            }
        }
        self.tail(out, usage);
    }

    /// The usage event, if asked for, and the end mark.
    pub fn done(&self, out: &mut BytesMut, usage: Usage) {
        if self.options.include_usage {
            out.put_slice(self.head.as_bytes());
            out.put_slice(b"],\"usage\":");
            write_usage(out, usage, true);
            let _ = write!(out, ",\"system_fingerprint\":\"{FINGERPRINT}\"}}\n\n");
        }
        out.put_slice(b"data: [DONE]\n\n");
    }

    fn tail(&self, out: &mut BytesMut, usage: Usage) {
        if self.options.continuous_usage_stats && self.options.include_usage {
            out.put_slice(b",\"usage\":");
            write_usage(out, usage, false);
        }
        out.put_slice(b"}\n\n");
    }
}

fn write_usage(out: &mut BytesMut, usage: Usage, details: bool) {
    let Usage {
        prompt,
        completion,
        cached,
    } = usage;
    let total = prompt + completion;
    let _ = write!(
        out,
        "{{\"prompt_tokens\":{prompt},\"total_tokens\":{total},\"completion_tokens\":{completion}"
    );
    if details {
        let _ = write!(out, ",\"prompt_tokens_details\":{{\"cached_tokens\":{cached}}}");
    }
    out.put_u8(b'}');
}
