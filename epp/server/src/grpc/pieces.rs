//! Bytes that came in pieces, read as one buffer; what lies within one piece is given out without a copy.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

/// DATA frames in order, as far as nobody has read them.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    pieces: VecDeque<Bytes>,
    len: usize,
}

impl Pieces {
    pub(super) fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.len += piece.len();
            self.pieces.push_back(piece);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }
}

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece)
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.len, "advancing beyond the end");
        self.len -= count;
        while count > 0
            && let Some(front) = self.pieces.front_mut()
        {
            if front.len() > count {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.pieces.pop_front();
        }
    }

    fn copy_to_bytes(&mut self, count: usize) -> Bytes {
        match self.pieces.front_mut() {
            Some(front) if front.len() > count => {
                self.len -= count;
                front.split_to(count)
            }
            Some(front) if front.len() == count => {
                self.len -= count;
                self.pieces.pop_front().unwrap_or_default()
            }
            _ => {
                assert!(count <= self.len, "reading beyond the end");
                let mut whole = BytesMut::with_capacity(count);
                while whole.len() < count {
                    let part = self.chunk();
                    let part = &part[..part.len().min(count - whole.len())];
                    whole.extend_from_slice(part);
                    let read = part.len();
                    self.advance(read);
                }
                whole.freeze()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_cut_reads_the_same_and_what_is_in_one_piece_is_not_copied() {
        let whole = Bytes::from_static(b"0123456789");
        for first in 0..=whole.len() {
            for second in first..=whole.len() {
                let mut pieces = Pieces::default();
                for piece in [
                    whole.slice(..first),
                    whole.slice(first..second),
                    whole.slice(second..),
                ] {
                    pieces.push(piece);
                }
                let mut read = Vec::new();
                for count in [1, 4, 0, 3] {
                    let at = read.len();
                    let part = pieces.copy_to_bytes(count);
                    if ![first, second].iter().any(|&cut| at < cut && cut < at + count) && count > 0 {
                        assert_eq!(
                            part.as_ptr(),
                            whole[at..].as_ptr(),
                            "copied at {at}, cut at {first}, {second}"
                        );
                    }
                    read.extend_from_slice(&part);
                }
                assert_eq!((&read[..], pieces.len()), (&whole[..8], 2));
                pieces.advance(1);
                assert_eq!((pieces.chunk(), pieces.remaining()), (&b"9"[..], 1));
            }
        }
    }
}
