//! Finds the `usage` object of a response document: at its top, in `response` of a `response.completed` event, or in
//! `message` of Anthropic's `message_start`; and SGLang's `meta_info`.

use std::convert::Infallible;

use crate::{
    Usage,
    json::{Container, Literal, Place, Sink},
};

/// A `usage` object longer than this is not read.
const MAX_USAGE: usize = 64 * 1024;

/// More of a `type` need not be known.
const MAX_KIND: usize = 64;

fn append_up_to(limit: usize, kept: &mut Vec<u8>, bytes: &[u8]) {
    let room = limit.saturating_sub(kept.len());
    kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Member {
    #[default]
    Other,
    Usage,
    Type,
    Response,
    ResponseUsage,
    MetaInfo,
}

/// Keeps the raw bytes of the two places where usage may be.
#[derive(Debug, Default)]
pub(super) struct UsageMember {
    depth: usize,
    member: Member,
    /// Body offset of the usage object being read, and the depth it was opened at.
    open: Option<(usize, usize)>,
    usage: Vec<u8>,
    response_usage: Vec<u8>,
    meta_info: Vec<u8>,
    kind: Vec<u8>,
}

impl UsageMember {
    /// Adds what was found to `usage`.
    pub(super) fn merge_into(&self, usage: &mut Usage) {
        if !self.usage.is_empty() {
            usage.merge_json(&self.usage);
        } else if matches!(self.kind.as_slice(), b"response.completed" | b"message_start") {
            usage.merge_json(&self.response_usage);
        }
        usage.merge_meta_info(&self.meta_info);
    }

    fn kept(&mut self) -> &mut Vec<u8> {
        match self.member {
            Member::Usage => &mut self.usage,
            Member::MetaInfo => &mut self.meta_info,
            _ => &mut self.response_usage,
        }
    }

    fn take(&mut self, place: Place<'_>) {
        let Some((from, _)) = self.open else { return };
        let kept = self.kept();
        // Cut off, an object is no JSON any more and counts as not there.
        append_up_to(MAX_USAGE, kept, place.since(from));
    }
}

impl Sink for UsageMember {
    type Stop = Infallible;

    fn open(&mut self, container: Container, place: Place<'_>) -> Result<(), Infallible> {
        let is_usage = matches!(
            (self.depth, self.member),
            (1, Member::Usage | Member::MetaInfo) | (2, Member::ResponseUsage)
        );
        if is_usage && container == Container::Object && self.open.is_none() {
            self.open = Some((place.at, self.depth));
            self.kept().clear();
        }
        self.depth += 1;
        Ok(())
    }

    fn close(&mut self, _: Container, place: Place<'_>) -> Result<(), Infallible> {
        self.depth -= 1;
        if self.open.is_some_and(|(_, depth)| depth == self.depth) {
            self.take(place);
            self.open = None;
            self.member = if self.depth == 2 {
                Member::Response
            } else {
                Member::Other
            };
        }
        Ok(())
    }

    fn key(&mut self, key: &[u8]) -> Result<(), Infallible> {
        if self.open.is_some() {
            return Ok(());
        }
        self.member = match (self.depth, key, self.member) {
            (1, b"usage", _) => Member::Usage,
            (1, b"type", _) => Member::Type,
            (1, b"meta_info", _) => Member::MetaInfo,
            (2, b"usage", Member::Response | Member::ResponseUsage) => Member::ResponseUsage,
            (1, b"response" | b"message", _) | (2.., _, Member::Response | Member::ResponseUsage) => {
                Member::Response
            }
            _ => Member::Other,
        };
        Ok(())
    }

    fn string_start(&mut self, _: Place<'_>) -> Result<bool, Infallible> {
        let wanted = self.depth == 1 && self.member == Member::Type;
        if wanted {
            self.kind.clear();
        }
        Ok(wanted)
    }

    fn text(&mut self, piece: &[u8]) {
        append_up_to(MAX_KIND, &mut self.kind, piece);
    }

    fn string_end(&mut self, _: Place<'_>) -> Result<(), Infallible> {
        Ok(())
    }

    fn number(&mut self, _: &[u8], _: usize, _: Place<'_>) -> Result<(), Infallible> {
        Ok(())
    }

    fn literal(&mut self, _: Literal, _: usize, _: Place<'_>) -> Result<(), Infallible> {
        Ok(())
    }

    fn chunk_end(&mut self, place: Place<'_>) {
        if let Some((_, depth)) = self.open {
            self.take(place);
            self.open = Some((place.at, depth));
        }
    }
}
