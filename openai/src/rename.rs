//! Puts the model name that the client asked for back into a response, also when it is cut in two.

use bytes::{BufMut, Bytes, BytesMut};
use memchr::memmem::Finder;

use crate::splice::json_string;

const KEY: &[u8] = b"\"model\":";

/// Chunks up to this size are rewritten into one new chunk; larger ones are cut into shared slices.
const COPY_LIMIT: usize = 16 * 1024;

/// Replaces `"model":"SERVED"` (with no or one blank after the colon) by `"model":"ASKED"`.
#[derive(Debug)]
pub struct Rename {
    /// `"SERVED"` as JSON.
    served: Bytes,
    asked: Bytes,
    finder: Finder<'static>,
    /// End of the last chunk that may be the beginning of a match.
    held: Bytes,
}

impl Rename {
    /// `None` when there is nothing to do: a name is empty or both are equal.
    pub fn new(served: &str, asked: &str) -> Option<Self> {
        if served.is_empty() || asked.is_empty() || served == asked {
            return None;
        }
        Some(Self {
            served: json_string(served),
            asked: json_string(asked),
            finder: Finder::new(KEY),
            held: Bytes::new(),
        })
    }

    /// Rewrites the next chunk into `out`. At most one match's length less one byte is held back until
    /// the next call; `end` flushes it.
    pub fn push(&mut self, chunk: Bytes, end: bool, out: &mut Vec<Bytes>) {
        let chunk = if self.held.is_empty() {
            chunk
        } else {
            joined(&std::mem::take(&mut self.held), &chunk)
        };
        let first = self.next_value(&chunk, 0);
        let by_copy = first.is_some() && chunk.len() <= COPY_LIMIT;
        let mut copy = BytesMut::with_capacity(if by_copy {
            chunk.len() + self.asked.len()
        } else {
            0
        });
        let mut done = 0;
        let mut next = first;
        while let Some(start) = next {
            if by_copy {
                copy.put_slice(&chunk[done..start]);
                copy.put_slice(&self.asked);
            } else {
                out.push(chunk.slice(done..start));
                out.push(self.asked.clone());
            }
            done = start + self.served.len();
            next = self.next_value(&chunk, done);
        }
        let ready = if end {
            chunk.len()
        } else {
            self.safe_len(&chunk, done)
        };
        if by_copy {
            copy.put_slice(&chunk[done..ready]);
            out.push(copy.freeze());
        } else if done < ready {
            out.push(chunk.slice(done..ready));
        }
        self.held = chunk.slice(ready..);
    }

    /// Forgets what is held back.
    pub(crate) fn discard_partial(&mut self) {
        self.held = Bytes::new();
    }

    /// Start of the next served name (its quote) at or after `from`.
    fn next_value(&self, chunk: &[u8], from: usize) -> Option<usize> {
        let mut from = from;
        loop {
            let key = from + self.finder.find(chunk.get(from..)?)?;
            let value = key + KEY.len();
            let value = value + usize::from(chunk.get(value) == Some(&b' '));
            if chunk[value..].starts_with(&self.served) {
                return Some(value);
            }
            from = key + 1;
        }
    }

    /// Length of `chunk` without the longest end that may be the beginning of a match; what lies
    /// before `done` belongs to one already.
    fn safe_len(&self, chunk: &[u8], done: usize) -> usize {
        let longest = KEY.len() + 1 + self.served.len() - 1;
        let from = chunk.len().saturating_sub(longest).max(done);
        // Every match begins with a quote.
        memchr::memchr_iter(b'"', &chunk[from..])
            .map(|index| from + index)
            .find(|&start| self.may_begin(&chunk[start..]))
            .unwrap_or(chunk.len())
    }

    fn may_begin(&self, tail: &[u8]) -> bool {
        if tail.len() <= KEY.len() {
            return KEY.starts_with(tail);
        }
        let Some(value) = tail.strip_prefix(KEY) else {
            return false;
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        value.len() < self.served.len() && self.served.starts_with(value)
    }
}

fn joined(held: &[u8], chunk: &[u8]) -> Bytes {
    let mut both = BytesMut::with_capacity(held.len() + chunk.len());
    both.put_slice(held);
    both.put_slice(chunk);
    both.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewrite(chunks: &[&str]) -> (String, Vec<usize>) {
        let mut rename = Rename::new("base", "mine").unwrap();
        let mut out = Vec::new();
        let mut lengths = Vec::new();
        for (index, chunk) in chunks.iter().enumerate() {
            let end = index + 1 == chunks.len();
            rename.push(Bytes::copy_from_slice(chunk.as_bytes()), end, &mut out);
            lengths.push(out.iter().map(Bytes::len).sum());
        }
        (String::from_utf8(out.concat()).unwrap(), lengths)
    }

    #[test]
    fn replaces_with_no_or_one_blank_after_the_colon() {
        for (given, wanted) in [
            (r#"{"model":"base"}"#, r#"{"model":"mine"}"#),
            (r#"{"model": "base","x":1}"#, r#"{"model": "mine","x":1}"#),
            (r#"{"model":  "base"}"#, r#"{"model":  "base"}"#),
            (r#"{"model":"based"}"#, r#"{"model":"based"}"#),
            (r#"{"root":"base"}"#, r#"{"root":"base"}"#),
            (
                r#""model":"base""model": "base""#,
                r#""model":"mine""model": "mine""#,
            ),
        ] {
            assert_eq!(rewrite(&[given]).0, wanted);
        }
    }

    #[test]
    fn a_name_cut_anywhere_is_found() {
        let text = r#"data: {"id":"x","model": "base","object":"model","model":"base"}"#;
        let wanted = text.replace("base", "mine");
        for cut in 0..text.len() {
            assert_eq!(rewrite(&[&text[..cut], &text[cut..]]).0, wanted, "cut at {cut}");
        }
        let single: Vec<String> = text.chars().map(String::from).collect();
        let single: Vec<&str> = single.iter().map(String::as_str).collect();
        assert_eq!(rewrite(&single).0, wanted);
    }

    #[test]
    fn an_event_that_ends_harmlessly_is_not_delayed() {
        let event = "data: {\"model\":\"base\"}\n\n";
        let (_, lengths) = rewrite(&[event, event]);
        assert_eq!(lengths, [event.len(), 2 * event.len()]);
    }

    #[test]
    fn names_are_compared_and_written_as_json() {
        let mut rename = Rename::new("a\"b", "c\\d").unwrap();
        let mut out = Vec::new();
        rename.push(Bytes::from_static(br#"{"model":"a\"b"}"#), true, &mut out);
        assert_eq!(out.concat(), br#"{"model":"c\\d"}"#);
    }

    #[test]
    fn large_chunks_are_shared_not_copied() {
        let body = Bytes::from(format!(
            "{{\"model\":\"base\",\"x\":\"{}\"}}",
            "y".repeat(COPY_LIMIT)
        ));
        let mut out = Vec::new();
        Rename::new("base", "mine")
            .unwrap()
            .push(body.clone(), true, &mut out);
        assert_eq!(out.len(), 3);
        assert_eq!(out[0].as_ptr(), body.as_ptr());
        assert_eq!(
            out.concat(),
            String::from_utf8_lossy(&body).replace("base", "mine").as_bytes()
        );
    }

    #[test]
    fn equal_or_empty_names_need_no_rename() {
        assert!(Rename::new("a", "a").is_none());
        assert!(Rename::new("", "a").is_none());
        assert!(Rename::new("a", "").is_none());
    }
}
