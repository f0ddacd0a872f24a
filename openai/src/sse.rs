//! Server-sent events as OpenAI streams use them: one `data:` line per event, `[DONE]` at the end.

use bytes::{BufMut, Bytes, BytesMut};

/// Content type of a stream.
pub const CONTENT_TYPE: &str = "text/event-stream";

/// The last event of a stream.
pub const DONE: &[u8] = b"data: [DONE]\n\n";

/// Whether a response with this content type is a stream.
pub fn is_event_stream(content_type: &str) -> bool {
    content_type.to_ascii_lowercase().contains(CONTENT_TYPE)
}

/// Appends one event with `data`, which must not contain a line end (compact JSON does not).
pub fn write_event(out: &mut BytesMut, data: &[u8]) {
    debug_assert!(!data.contains(&b'\n'));
    out.reserve(data.len() + 8);
    out.put_slice(b"data: ");
    out.put_slice(data);
    out.put_slice(b"\n\n");
}

/// Longest line that is assembled from several chunks, in bytes; longer ones are passed over.
pub const MAX_LINE: usize = 1 << 20;

/// Cuts a stream into the payloads of its `data:` lines, over chunks cut anywhere. The blank after
/// the colon may be missing and lines may end in CRLF.
#[derive(Debug, Default)]
pub struct DataLines {
    /// The unfinished line.
    line: BytesMut,
    /// The unfinished line is longer than [`MAX_LINE`].
    overlong: bool,
}

impl DataLines {
    /// Gives the payload of each data line that ends in `chunk` to `each`. Lines that lie in one chunk are not copied.
    pub fn push(&mut self, chunk: &[u8], mut each: impl FnMut(&[u8])) {
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', chunk) {
            self.complete(&chunk[start..end], &mut each);
            start = end + 1;
        }
        let rest = &chunk[start..];
        if self.line.len() + rest.len() > MAX_LINE {
            self.overlong = true;
            self.line.clear();
        } else if !self.overlong {
            self.line.put_slice(rest);
        }
    }

    /// The stream ended; a last line without line end counts.
    pub fn finish(&mut self, mut each: impl FnMut(&[u8])) {
        self.complete(b"", &mut each);
    }

    fn complete(&mut self, end_of_line: &[u8], each: &mut impl FnMut(&[u8])) {
        if std::mem::take(&mut self.overlong) {
            return;
        }
        if self.line.is_empty() {
            payload(end_of_line).into_iter().for_each(each);
            return;
        }
        self.line.put_slice(end_of_line);
        payload(&self.line).into_iter().for_each(each);
        self.line.clear();
    }
}

pub(crate) fn payload(line: &[u8]) -> Option<&[u8]> {
    let data = line.strip_prefix(b"data:")?;
    let data = data.strip_prefix(b" ").unwrap_or(data);
    Some(data.strip_suffix(b"\r").unwrap_or(data))
}

/// Whether the payload ends the stream.
pub fn is_done(data: &[u8]) -> bool {
    data.trim_ascii() == b"[DONE]"
}

/// Collects the payloads of a whole stream, for tests and small clients.
pub fn payloads(stream: &[u8]) -> Vec<Bytes> {
    let mut lines = DataLines::default();
    let mut found = Vec::new();
    lines.push(stream, |data| found.push(Bytes::copy_from_slice(data)));
    lines.finish(|data| found.push(Bytes::copy_from_slice(data)));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_events_are_read_back() {
        let mut stream = BytesMut::new();
        write_event(&mut stream, br#"{"a":1}"#);
        stream.put_slice(DONE);
        assert_eq!(payloads(&stream), [&br#"{"a":1}"#[..], b"[DONE]"]);
    }

    #[test]
    fn blanks_and_line_ends_may_vary() {
        let stream =
            b"event: x\r\ndata:one\r\n\r\n: comment\ndata: two\n\ndata:  three\n\ndatum: no\ndata: last";
        assert_eq!(payloads(stream), [&b"one"[..], b"two", b" three", b"last"]);
    }

    #[test]
    fn an_overlong_line_is_passed_over_and_the_next_one_read() {
        let mut lines = DataLines::default();
        let mut seen = 0;
        lines.push(b"data: ", |_| seen += 1);
        for _ in 0..3 {
            lines.push(&vec![b'x'; MAX_LINE / 2], |_| seen += 1);
        }
        assert_eq!(lines.line.len(), 0);
        lines.push(b"tail\ndata: ok\n", |data| {
            assert_eq!(data, b"ok");
            seen += 1;
        });
        assert_eq!(seen, 1);
    }

    #[test]
    fn only_the_done_word_ends_a_stream() {
        assert!(is_done(b"[DONE]\r"));
        assert!(!is_done(b"\"[DONE]\""));
    }
}
