//! Follows a streamed answer and remembers what of it the client has.

use std::sync::LazyLock;

use bytes::{BufMut, BytesMut};
use memchr::memmem::Finder;

use super::members::Members;
use crate::BodyKind;
use crate::sse::{MAX_LINE, is_done, payload};

static CONTENT: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"content\":"));
static TEXT: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"text\":"));
static FINISH: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"finish_reason\":"));
static TOOL_CALLS: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"tool_calls\":"));
static REASONING: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"reasoning"));

/// What the client has of a streamed answer with one choice. An event counts when the blank line
/// that ends it has arrived, as only whole events are passed on.
#[derive(Debug)]
pub struct StreamFollower {
    text_field: &'static Finder<'static>,
    longest_text: usize,
    line: BytesMut,
    /// Content so far, as the inside of a JSON string.
    text: Vec<u8>,
    seen: Progress,
    /// As of the last whole event.
    passed: Progress,
    opening: Option<Opening>,
    lost: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    text: usize,
    events: u64,
    tokens: u64,
    is_finished: bool,
    is_done: bool,
}

/// Members of the first event that all events of an answer share, as raw JSON.
#[derive(Clone, Debug)]
pub(super) struct Opening {
    pub(super) id: String,
    pub(super) created: String,
    pub(super) object: String,
    pub(super) model: String,
}

impl StreamFollower {
    /// A follower of an answer to a request of `kind`; a text of more than `longest_text` bytes (as
    /// JSON) is given up. `None` for kinds that have no text to continue.
    pub fn new(kind: BodyKind, longest_text: usize) -> Option<Self> {
        let text_field = match kind {
            BodyKind::ChatCompletions => &*CONTENT,
            BodyKind::Completions => &*TEXT,
            _ => return None,
        };
        Some(Self {
            text_field,
            longest_text,
            line: BytesMut::new(),
            text: Vec::new(),
            seen: Progress::default(),
            passed: Progress::default(),
            opening: None,
            lost: None,
        })
    }

    /// Reads the next chunk of the answer.
    pub fn observe(&mut self, chunk: &[u8]) {
        if self.lost.is_some() {
            return;
        }
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', chunk) {
            self.complete_line(&chunk[start..end]);
            start = end + 1;
        }
        if self.line.len() + chunk.len() - start > MAX_LINE {
            self.give_up("an event is too long");
        } else {
            self.line.put_slice(&chunk[start..]);
        }
    }

    /// The engine is gone: forgets what of its last event had arrived.
    pub fn broke(&mut self) {
        self.line.clear();
        self.seen = self.passed;
        self.text.truncate(self.passed.text);
        if self.passed.events == 0 {
            self.opening = None;
        }
    }

    /// Why the answer cannot be continued, if it cannot.
    pub fn lost(&self) -> Option<&'static str> {
        self.lost
    }

    /// Whether an event with a `finish_reason` was passed on: only the end of the stream is missing.
    pub fn is_finished(&self) -> bool {
        self.passed.is_finished
    }

    /// Whether the end of the stream was passed on.
    pub fn is_done(&self) -> bool {
        self.passed.is_done
    }

    /// Events with text that were passed on. Each is at least one token; an engine that falls behind
    /// puts several into one.
    pub fn tokens(&self) -> u64 {
        self.passed.tokens
    }

    /// Bytes of text that are kept.
    pub fn text_len(&self) -> usize {
        self.text.len()
    }

    /// Content passed on, as the inside of a JSON string.
    pub(super) fn text(&self) -> &[u8] {
        &self.text[..self.passed.text]
    }

    pub(super) fn opening(&self) -> Option<&Opening> {
        self.opening.as_ref()
    }

    fn complete_line(&mut self, end: &[u8]) {
        if self.line.is_empty() {
            self.read_line(end);
            return;
        }
        self.line.put_slice(end);
        let line = self.line.split();
        self.read_line(&line);
    }

    fn read_line(&mut self, line: &[u8]) {
        if line.is_empty() || line == b"\r" {
            self.passed = self.seen;
        } else if let Some(data) = payload(line) {
            self.read_event(data);
        }
    }

    fn read_event(&mut self, data: &[u8]) {
        if is_done(data) {
            self.seen.is_done = true;
            return;
        }
        self.seen.events += 1;
        if self.opening.is_none() {
            self.opening = Opening::read(data);
        }
        if let Some(piece) = value(data, self.text_field).and_then(string)
            && !piece.is_empty()
        {
            self.text.extend_from_slice(piece);
            self.seen.text = self.text.len();
            self.seen.tokens += 1;
            if self.text.len() > self.longest_text {
                self.give_up("the text so far is too long");
            }
        }
        self.seen.is_finished |= value(data, &FINISH).and_then(string).is_some();
        if let Some(calls) = value(data, &TOOL_CALLS).and_then(|value| value.strip_prefix(b"["))
            && calls.trim_ascii_start().first() != Some(&b']')
        {
            self.give_up("the answer calls a tool");
        }
        if let Some(at) = REASONING.find(data)
            && data[at..]
                .iter()
                .position(|byte| *byte == b':')
                .and_then(|colon| string(data[at + colon + 1..].trim_ascii_start()))
                .is_some_and(|text| !text.is_empty())
        {
            self.give_up("the answer holds reasoning");
        }
        if data.trim_ascii_start().starts_with(b"{\"error\"") {
            self.give_up("the engine reported an error");
        }
    }

    /// Stops following: the answer cannot be continued, for the reason `why`.
    pub fn give_up(&mut self, why: &'static str) {
        self.lost.get_or_insert(why);
        self.text = Vec::new();
        self.line = BytesMut::new();
    }
}

impl Opening {
    fn read(data: &[u8]) -> Option<Self> {
        let members = Members::read(data)?;
        Some(Self {
            id: members.get("id")?.to_owned(),
            created: members.get("created")?.to_owned(),
            object: members.get("object")?.to_owned(),
            model: members.get("model")?.to_owned(),
        })
    }
}

/// What follows the member name that `finder` looks for. Inside a string its quotes would be escaped.
fn value<'a>(data: &'a [u8], finder: &Finder<'_>) -> Option<&'a [u8]> {
    let at = finder.find(data)?;
    Some(data[at + finder.needle().len()..].trim_ascii_start())
}

/// The inside of the JSON string that `json` begins with.
fn string(json: &[u8]) -> Option<&[u8]> {
    let inside = json.strip_prefix(b"\"")?;
    let mut at = 0;
    loop {
        at += memchr::memchr2(b'"', b'\\', inside.get(at..)?)?;
        if inside[at] == b'"' {
            return Some(&inside[..at]);
        }
        at += 2;
    }
}
