//! Puts another number of cached prompt tokens into a response, also when it is cut in two.
//!
//! A decode engine that got its blocks from a prefill engine counts all of them as cached; what the client wants to
//! know is what the prefill engine had.

use bytes::{BufMut, Bytes, BytesMut};
use memchr::memmem::Finder;

/// In text, quotes are escaped: this is a member's name.
const KEY: &[u8] = b"\"cached_tokens\":";
/// Digits of a count, at most.
const MAX_DIGITS: usize = 20;

/// Replaces the number of each `cached_tokens`.
#[derive(Debug)]
pub struct CachedTokens {
    count: Bytes,
    finder: Finder<'static>,
    /// End of the last chunk that may be the beginning of a member.
    held: Bytes,
}

impl CachedTokens {
    /// Says `count` instead of what the engine says.
    pub fn new(count: u64) -> Self {
        Self {
            count: count.to_string().into(),
            finder: Finder::new(KEY),
            held: Bytes::new(),
        }
    }

    /// Rewrites the next chunk into `out`; `end` flushes what is held back.
    pub fn push(&mut self, chunk: Bytes, end: bool, out: &mut Vec<Bytes>) {
        let held = std::mem::take(&mut self.held);
        let chunk = if held.is_empty() {
            chunk
        } else {
            let mut joined = BytesMut::with_capacity(held.len() + chunk.len());
            joined.put(held);
            joined.put(chunk);
            joined.freeze()
        };
        let mut done = 0;
        while let Some(found) = self.finder.find(&chunk[done..]) {
            let key = done + found;
            let value = key + KEY.len();
            let blanks = chunk[value..].iter().take_while(|byte| **byte == b' ').count();
            let start = value + blanks;
            let digits = chunk[start..]
                .iter()
                .take_while(|byte| byte.is_ascii_digit())
                .count();
            let is_cut = start + digits == chunk.len() && digits <= MAX_DIGITS && blanks <= 1;
            if is_cut && !end {
                push(out, chunk.slice(done..key));
                self.held = chunk.slice(key..);
                return;
            }
            push(out, chunk.slice(done..start));
            if digits > 0 {
                push(out, self.count.clone());
            }
            done = start + digits;
        }
        let ready = if end { chunk.len() } else { safe_len(&chunk, done) };
        push(out, chunk.slice(done..ready));
        self.held = chunk.slice(ready..);
    }
}

fn push(out: &mut Vec<Bytes>, piece: Bytes) {
    if !piece.is_empty() {
        out.push(piece);
    }
}

/// Length of `chunk` without the longest end that may be the beginning of the name.
fn safe_len(chunk: &[u8], done: usize) -> usize {
    let from = chunk.len().saturating_sub(KEY.len() - 1).max(done);
    (from..chunk.len())
        .find(|&start| KEY.starts_with(&chunk[start..]))
        .unwrap_or(chunk.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(chunks: &[&[u8]]) -> Vec<u8> {
        let mut rewriter = CachedTokens::new(12);
        let mut out = Vec::new();
        for chunk in chunks {
            rewriter.push(Bytes::copy_from_slice(chunk), false, &mut out);
        }
        rewriter.push(Bytes::new(), true, &mut out);
        out.concat()
    }

    #[test]
    fn every_count_is_replaced_wherever_the_response_is_cut() {
        let body = br#"{"a":"\"cached_tokens\":5","usage":{"prompt_tokens_details":{"cached_tokens": 4096},"x":[{"cached_tokens":0}],"cached_tokens":null}}"#;
        let wanted = br#"{"a":"\"cached_tokens\":5","usage":{"prompt_tokens_details":{"cached_tokens": 12},"x":[{"cached_tokens":12}],"cached_tokens":null}}"#;
        for cut in 0..=body.len() {
            assert_eq!(rewritten(&[&body[..cut], &body[cut..]]), wanted, "cut at {cut}");
        }
        let single: Vec<&[u8]> = body.chunks(1).collect();
        assert_eq!(rewritten(&single), wanted);
        assert_eq!(rewritten(&[br#"{"cached_tokens":7"#]), br#"{"cached_tokens":12"#);
    }
}
