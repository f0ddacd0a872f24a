//! Reads a response on its way to the client: token usage, event count, end mark; restores the model name.

mod usage_member;

use bytes::Bytes;
use memchr::memmem::Finder;

use crate::{
    BodyKind, Rename, Usage,
    grpc::ResponseMessages,
    json::Lexer,
    sse::{DataLines, is_done},
};
use usage_member::UsageMember;

/// Shape of a response body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseMode {
    /// Server-sent events (`text/event-stream`).
    Sse,
    /// One JSON document.
    Json,
}

const USAGE: &[u8] = b"\"usage\"";
const META_INFO: &[u8] = b"\"meta_info\"";
/// More nesting than this in a response ends the reading of its usage, not the response.
const MAX_DEPTH: usize = 256;

/// Incremental reader of one response. It never changes or delays bytes unless a rename is set, and
/// a body it cannot parse only has no usage.
#[derive(Debug)]
pub struct ResponseReader {
    rename: Option<Rename>,
    body: Body,
    facts: Facts,
}

#[derive(Debug)]
enum Body {
    Sse(DataLines),
    /// `None` once the document turned out to be no JSON.
    Json(Option<Box<Document>>),
    Grpc(ResponseMessages),
}

#[derive(Debug)]
struct Document {
    lexer: Lexer,
    usage: UsageMember,
}

#[derive(Debug)]
struct Facts {
    usage: Usage,
    events: u64,
    done: bool,
    /// The member that is looked for in events.
    key: Finder<'static>,
}

impl ResponseReader {
    /// A reader for one response to a request of `kind`; `rename` restores the model name the client asked
    /// for.
    pub fn new(mode: ResponseMode, kind: BodyKind, rename: Option<Rename>) -> Self {
        let body = match (kind, mode) {
            (BodyKind::Grpc(service), _) => Body::Grpc(ResponseMessages::new(service)),
            (_, ResponseMode::Sse) => Body::Sse(DataLines::default()),
            (_, ResponseMode::Json) => Body::Json(Some(Box::new(Document {
                lexer: Lexer::new(MAX_DEPTH),
                usage: UsageMember::default(),
            }))),
        };
        let facts = Facts {
            usage: Usage::default(),
            events: 0,
            done: false,
            key: Finder::new(match kind {
                BodyKind::SglangGenerate => META_INFO,
                _ => USAGE,
            }),
        };
        // Another name inside a message would make its lengths wrong.
        let rename = rename.filter(|_| !matches!(kind, BodyKind::Grpc(_)));
        Self { rename, body, facts }
    }

    /// Reads the next chunk and appends what goes to the client to `out`. `end` says that no more
    /// follows (`chunk` may be empty then).
    pub fn push(&mut self, chunk: Bytes, end: bool, out: &mut Vec<Bytes>) {
        self.body.read(&chunk, end, &mut self.facts);
        match &mut self.rename {
            Some(rename) => rename.push(chunk, end, out),
            None if chunk.is_empty() => {}
            None => out.push(chunk),
        }
    }

    /// The engine is gone and another one carries on: forgets the unfinished event.
    pub fn discard_partial(&mut self) {
        if let Body::Sse(lines) = &mut self.body {
            *lines = DataLines::default();
        }
        if let Some(rename) = &mut self.rename {
            rename.discard_partial();
        }
    }

    /// Token counts so far.
    pub fn usage(&self) -> Usage {
        self.facts.usage
    }

    /// Data lines of a stream so far, the end mark not counted.
    pub fn events(&self) -> u64 {
        self.facts.events
    }

    /// Whether `[DONE]` was seen.
    pub fn is_done(&self) -> bool {
        self.facts.done
    }
}

impl Body {
    fn read(&mut self, chunk: &[u8], end: bool, facts: &mut Facts) {
        match self {
            Self::Sse(lines) => {
                lines.push(chunk, |data| facts.event(data));
                if end {
                    lines.finish(|data| facts.event(data));
                }
            }
            Self::Grpc(messages) => facts.events += messages.push(chunk, &mut facts.usage),
            Self::Json(slot) => {
                let Some(document) = slot else { return };
                let mut outcome = document.lexer.push(chunk, &mut document.usage);
                if end && outcome.is_ok() {
                    outcome = document.lexer.finish(&mut document.usage);
                    document.usage.merge_into(&mut facts.usage);
                }
                if outcome.is_err() {
                    *slot = None;
                }
            }
        }
    }
}

/// Adds the token counts of a whole document; nothing, where it is none.
pub(crate) fn usage_of_document(data: &[u8], usage: &mut Usage) {
    let mut member = UsageMember::default();
    let mut lexer = Lexer::new(MAX_DEPTH);
    let read = lexer
        .push(data, &mut member)
        .and_then(|()| lexer.finish(&mut member));
    if read.is_ok() {
        member.merge_into(usage);
    }
}

impl Facts {
    fn event(&mut self, data: &[u8]) {
        if self.done {
            return;
        }
        if is_done(data) {
            self.done = true;
            return;
        }
        self.events += 1;
        if !self.has_usage(data) {
            return;
        }
        usage_of_document(data, &mut self.usage);
    }

    /// Whether a `usage` member that is not null may be in the event; engines that report usage at the
    /// end send `"usage":null` in all events before.
    fn has_usage(&self, data: &[u8]) -> bool {
        self.key.find_iter(data).any(|at| {
            let rest = data[at + self.key.needle().len()..].trim_ascii_start();
            let value = rest.strip_prefix(b":").unwrap_or_default().trim_ascii_start();
            value.first() == Some(&b'{')
        })
    }
}

#[cfg(test)]
mod tests;
