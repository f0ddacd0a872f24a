//! Collects the text of Anthropic messages and of their system prompt: roles, texts, tool calls and results, in body
//! order.

use crate::json::Container;

/// Members whose strings say nothing about what is computed: encoded media, kinds and identifiers.
const PASSED_OVER: [&[u8]; 7] = [
    b"type",
    b"data",
    b"media_type",
    b"id",
    b"tool_use_id",
    b"signature",
    b"cache_control",
];
/// More of a block's type need not be known.
const LONGEST_TYPE: usize = 16;

/// State of `messages` or `system`. Depths are those of the whole document: an array is at 2, its objects at 3.
#[derive(Debug, Default)]
pub(super) struct Texts {
    text: Vec<u8>,
    media_parts: usize,
    messages: usize,
    /// Something else than an object stands where a message must.
    spoiled: bool,
    /// The last member name is one of [`PASSED_OVER`].
    passes_over: bool,
    /// The last member name is `type`.
    at_type: bool,
    kind: Vec<u8>,
    /// The string being read is a block's type.
    in_type: bool,
}

impl Texts {
    /// At least one message, and nothing but messages.
    pub(super) fn has_messages(&self) -> bool {
        self.messages > 0 && !self.spoiled
    }

    pub(super) fn into_text(self) -> (Vec<u8>, usize) {
        (self.text, self.media_parts)
    }

    pub(super) fn open(&mut self, container: Container, depth: usize) {
        if depth == 2 {
            match container {
                Container::Object => self.messages += 1,
                Container::Array => self.spoiled = true,
            }
        }
        (self.passes_over, self.at_type) = (false, false);
    }

    pub(super) fn key(&mut self, key: &[u8]) {
        self.passes_over = PASSED_OVER.contains(&key);
        self.at_type = key == b"type";
    }

    /// A string value begins; `true` when its text is wanted.
    pub(super) fn string_start(&mut self, depth: usize) -> bool {
        self.spoiled |= depth == 2;
        self.in_type = self.at_type;
        self.kind.clear();
        self.in_type || !self.passes_over
    }

    pub(super) fn text(&mut self, piece: &[u8]) {
        if self.in_type {
            let room = LONGEST_TYPE.saturating_sub(self.kind.len());
            self.kind.extend_from_slice(&piece[..piece.len().min(room)]);
        } else {
            self.text.extend_from_slice(piece);
        }
    }

    pub(super) fn string_end(&mut self) {
        if std::mem::take(&mut self.in_type) && matches!(self.kind.as_slice(), b"image" | b"document") {
            self.media_parts += 1;
        }
    }

    /// Numbers and literals are arguments of tools.
    pub(super) fn scalar(&mut self, text: &[u8], depth: usize) {
        self.spoiled |= depth == 2;
        if !self.passes_over {
            self.text.extend_from_slice(text);
        }
    }
}
