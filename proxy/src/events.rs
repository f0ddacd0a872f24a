//! Passes server-sent events on whole: an unfinished one waits for its end.
//!
//! When a target dies inside an event, the client must not get its half: glued to the error event
//! that follows, it would be one line that no parser reads.

use std::collections::VecDeque;

use bytes::Bytes;

/// An event larger than this is passed on in pieces, so that memory stays bounded.
const LONGEST: usize = 1024 * 1024;

/// The unfinished end of an event stream.
#[derive(Debug, Default)]
pub(crate) struct WholeEvents {
    tail: Vec<u8>,
}

impl WholeEvents {
    /// Adds a piece; what is complete goes to `ready`. A piece that ends with an event, which is
    /// what engines send, is passed on as it is.
    pub(crate) fn push(&mut self, piece: &Bytes, ready: &mut VecDeque<Bytes>) {
        let Some(end) = last_end(piece).or_else(|| self.straddling_end(piece)) else {
            self.tail.extend_from_slice(piece);
            if self.tail.len() > LONGEST {
                self.finish(ready);
            }
            return;
        };
        if self.tail.is_empty() {
            ready.push_back(piece.slice(..end));
        } else {
            self.tail.extend_from_slice(&piece[..end]);
            ready.push_back(std::mem::take(&mut self.tail).into());
        }
        self.tail.extend_from_slice(&piece[end..]);
    }

    /// The end of a blank line that began in the tail.
    fn straddling_end(&self, piece: &[u8]) -> Option<usize> {
        let newline = self.tail.ends_with(b"\n");
        match piece {
            [b'\n', ..] if newline || self.tail.ends_with(b"\n\r") => Some(1),
            [b'\r', b'\n', ..] if newline => Some(2),
            _ => None,
        }
    }

    /// The target is gone: drops the unfinished event.
    pub(crate) fn discard(&mut self) {
        self.tail = Vec::new();
    }

    /// The stream ended well: passes on what is left.
    pub(crate) fn finish(&mut self, ready: &mut VecDeque<Bytes>) {
        if !self.tail.is_empty() {
            ready.push_back(std::mem::take(&mut self.tail).into());
        }
    }
}

/// One past the last blank line of `piece` (`\n\n` or `\r\n\r\n`, WHATWG HTML §9.2.5).
fn last_end(piece: &[u8]) -> Option<usize> {
    let mut newlines = memchr::memrchr_iter(b'\n', piece);
    let mut later = newlines.next()?;
    for earlier in newlines {
        if later - earlier == 1 || (later - earlier == 2 && piece[earlier + 1] == b'\r') {
            return Some(later + 1);
        }
        later = earlier;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(pieces: &[&str]) -> (Vec<String>, String) {
        let (mut events, mut ready) = (WholeEvents::default(), VecDeque::new());
        for piece in pieces {
            events.push(&Bytes::copy_from_slice(piece.as_bytes()), &mut ready);
        }
        let passed = ready
            .drain(..)
            .map(|piece| String::from_utf8(piece.to_vec()).unwrap())
            .collect();
        events.finish(&mut ready);
        (
            passed,
            ready
                .iter()
                .map(|piece| String::from_utf8(piece.to_vec()).unwrap())
                .collect(),
        )
    }

    #[test]
    fn half_events_wait_for_their_end() {
        let kept = |pieces: &[&str], passed: &[&str], rest: &str| {
            assert_eq!(
                pass(pieces),
                (
                    passed.iter().map(|piece| (*piece).to_owned()).collect(),
                    rest.to_owned()
                )
            );
        };
        kept(
            &["data: 1\n\n", "data: 2\n\n"],
            &["data: 1\n\n", "data: 2\n\n"],
            "",
        );
        kept(
            &["data: 1\n\nda", "ta: 2\n\n"],
            &["data: 1\n\n", "data: 2\n\n"],
            "",
        );
        kept(&["data: 1\n", "\ndata: 2"], &["data: 1\n\n"], "data: 2");
        kept(&["data: 1\r\n", "\r\ndata"], &["data: 1\r\n\r\n"], "data");
        kept(&["data: 1\r\n\r", "\ndata"], &["data: 1\r\n\r\n"], "data");
        kept(&["data: 1\r\n\r\ndata"], &["data: 1\r\n\r\n"], "data");
        kept(&["a\n\nb\n\nc"], &["a\n\nb\n\n"], "c");
    }

    #[test]
    fn a_complete_piece_is_not_copied() {
        let (mut events, mut ready) = (WholeEvents::default(), VecDeque::new());
        let piece = Bytes::from_static(b"data: 1\n\n");
        events.push(&piece, &mut ready);
        assert_eq!(ready[0].as_ptr(), piece.as_ptr());
    }

    #[test]
    fn an_endless_event_is_bounded() {
        let (mut events, mut ready) = (WholeEvents::default(), VecDeque::new());
        for _ in 0..3 {
            events.push(&vec![b'x'; LONGEST].into(), &mut ready);
        }
        assert!(ready.iter().map(Bytes::len).sum::<usize>() >= LONGEST);
    }
}
