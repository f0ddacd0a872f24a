//! An incremental JSON lexer: checks well-formedness over chunks cut anywhere and reports what it
//! passes to a [`Sink`], without a tree and without copying what nobody asked for.

mod number;
mod text;

use number::NumberState;
use text::StringState;

/// Object or array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// `{…}`
    Object,
    /// `[…]`
    Array,
}

/// The three literals of JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Literal {
    /// `null`
    Null,
    /// `true`
    True,
    /// `false`
    False,
}

impl Literal {
    pub(crate) const fn bytes(self) -> &'static [u8] {
        match self {
            Self::Null => b"null",
            Self::True => b"true",
            Self::False => b"false",
        }
    }
}

/// Where in the body an event happened, with the chunk at hand.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    chunk: &'a [u8],
    base: usize,
    /// Offset from the first byte of the body: of the first byte for a start, one past the last
    /// byte for an end.
    pub at: usize,
}

impl<'a> Place<'a> {
    /// Bytes of the current chunk from body offset `from` (or from its beginning) up to here.
    pub fn since(&self, from: usize) -> &'a [u8] {
        &self.chunk[from.saturating_sub(self.base)..self.at - self.base]
    }
}

/// Receives the structure of a document.
pub trait Sink {
    /// Why this consumer stops the scan.
    type Stop;

    /// A container opens at `place`.
    fn open(&mut self, container: Container, place: Place<'_>) -> Result<(), Self::Stop>;
    /// The innermost container closed; `place` is one past its bracket.
    fn close(&mut self, container: Container, place: Place<'_>) -> Result<(), Self::Stop>;
    /// A member name, decoded. Names longer than [`MAX_KEY`] bytes come as an empty slice.
    fn key(&mut self, key: &[u8]) -> Result<(), Self::Stop>;
    /// A string value starts at its quote. `true` asks for its decoded text.
    fn string_start(&mut self, place: Place<'_>) -> Result<bool, Self::Stop>;
    /// A piece of the decoded text that was asked for.
    fn text(&mut self, piece: &[u8]);
    /// The string value ended one past its quote.
    fn string_end(&mut self, place: Place<'_>) -> Result<(), Self::Stop>;
    /// A number ended. Texts longer than [`MAX_NUMBER`] bytes come as an empty slice.
    fn number(&mut self, text: &[u8], start: usize, place: Place<'_>) -> Result<(), Self::Stop>;
    /// A literal ended.
    fn literal(&mut self, literal: Literal, start: usize, place: Place<'_>) -> Result<(), Self::Stop>;
    /// The chunk is used up; a consumer that collects raw bytes takes them now.
    fn chunk_end(&mut self, place: Place<'_>);
}

/// Longest member name reported to a sink, in bytes.
pub const MAX_KEY: usize = 64;
/// Longest number text reported to a sink, in bytes.
pub const MAX_NUMBER: usize = 32;

/// Why a document was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LexError<Stop> {
    /// Not JSON, with the offset of the offending byte and what is wrong there.
    Syntax {
        /// Offset from the first byte of the body.
        offset: usize,
        /// What is wrong.
        reason: &'static str,
    },
    /// More open containers than allowed.
    Depth {
        /// Offset of the bracket that went too deep.
        offset: usize,
    },
    /// The sink stopped the scan.
    Stopped(Stop),
}

impl<Stop> From<Stop> for LexError<Stop> {
    fn from(stop: Stop) -> Self {
        Self::Stopped(stop)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A value must follow.
    Value,
    /// After `[`: a value or `]`.
    FirstItem,
    /// After `{`: a name or `}`.
    FirstKey,
    /// After a comma in an object.
    Key,
    /// After a name.
    Colon,
    /// After a value inside a container.
    Next,
    String,
    KeyString,
    Number(NumberState),
    Literal(Literal, u8),
    /// The document is complete; only blanks may follow.
    Done,
}

/// State of one document.
#[derive(Debug)]
pub struct Lexer {
    state: State,
    stack: Vec<Container>,
    max_depth: usize,
    /// Body offset of the next chunk's first byte.
    base: usize,
    string: StringState,
    /// Whether the sink wants the text of the current string value.
    wanted: bool,
    /// Body offset where the current number or literal began.
    scalar_start: usize,
    /// Decoded name or number text, bounded by `MAX_KEY` + 1.
    scratch: Vec<u8>,
}

impl Lexer {
    /// A lexer that refuses more than `max_depth` open containers.
    pub fn new(max_depth: usize) -> Self {
        Self {
            state: State::Value,
            stack: Vec::new(),
            max_depth,
            base: 0,
            string: StringState::default(),
            wanted: false,
            scalar_start: 0,
            scratch: Vec::with_capacity(MAX_KEY),
        }
    }

    /// Bytes consumed so far.
    pub fn consumed(&self) -> usize {
        self.base
    }

    /// Consumes the next chunk. After an error the lexer must not be used again.
    pub fn push<S: Sink>(&mut self, chunk: &[u8], sink: &mut S) -> Result<(), LexError<S::Stop>> {
        let mut pos = 0;
        while pos < chunk.len() {
            pos = match self.state {
                State::String | State::KeyString => self.in_string(chunk, pos, sink)?,
                State::Number(number) => self.in_number(number, chunk, pos, sink)?,
                State::Literal(literal, matched) => self.in_literal(literal, matched, chunk, pos, sink)?,
                _ => self.structural(chunk, pos, sink)?,
            };
        }
        self.base += chunk.len();
        sink.chunk_end(Place {
            chunk,
            base: self.base - chunk.len(),
            at: self.base,
        });
        Ok(())
    }

    /// The body ended: the document must be complete.
    pub fn finish<S: Sink>(&mut self, sink: &mut S) -> Result<(), LexError<S::Stop>> {
        if let State::Number(number) = self.state
            && self.stack.is_empty()
            && number.is_complete()
        {
            self.number_done(
                Place {
                    chunk: &[],
                    base: self.base,
                    at: self.base,
                },
                sink,
            )?;
        }
        if self.state == State::Done {
            return Ok(());
        }
        Err(LexError::Syntax {
            offset: self.base,
            reason: "unexpected end of JSON input",
        })
    }

    fn structural<S: Sink>(
        &mut self,
        chunk: &[u8],
        start: usize,
        sink: &mut S,
    ) -> Result<usize, LexError<S::Stop>> {
        let Some(blanks) = chunk[start..]
            .iter()
            .position(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r'))
        else {
            return Ok(chunk.len());
        };
        let pos = start + blanks;
        let byte = chunk[pos];
        let here = Place {
            chunk,
            base: self.base,
            at: self.base + pos,
        };
        let after = Place {
            at: here.at + 1,
            ..here
        };
        match (self.state, byte) {
            (State::FirstKey | State::Key, b'"') => {
                self.scratch.clear();
                self.string = StringState::default();
                self.state = State::KeyString;
            }
            (State::FirstKey, b'}') | (State::FirstItem, b']') => self.close(after, sink)?,
            (State::Colon, b':') => self.state = State::Value,
            (State::Next, b',') => {
                self.state = match self.stack.last() {
                    Some(Container::Object) => State::Key,
                    _ => State::Value,
                };
            }
            (State::Next, b'}') if self.stack.last() == Some(&Container::Object) => {
                self.close(after, sink)?;
            }
            (State::Next, b']') if self.stack.last() == Some(&Container::Array) => self.close(after, sink)?,
            (State::Value | State::FirstItem, _) => self.value(byte, here, sink)?,
            (state, _) => {
                return Err(LexError::Syntax {
                    offset: here.at,
                    reason: expectation(state),
                });
            }
        }
        Ok(pos + 1)
    }

    fn value<S: Sink>(&mut self, byte: u8, here: Place<'_>, sink: &mut S) -> Result<(), LexError<S::Stop>> {
        match byte {
            b'"' => {
                self.wanted = sink.string_start(here)?;
                self.string = StringState::default();
                self.state = State::String;
            }
            b'{' => self.open(Container::Object, State::FirstKey, here, sink)?,
            b'[' => self.open(Container::Array, State::FirstItem, here, sink)?,
            b'-' | b'0'..=b'9' => {
                self.scalar_start = here.at;
                self.scratch.clear();
                self.scratch.push(byte);
                self.state = State::Number(NumberState::begin(byte));
            }
            b't' => self.begin_literal(Literal::True, here),
            b'f' => self.begin_literal(Literal::False, here),
            b'n' => self.begin_literal(Literal::Null, here),
            _ => {
                return Err(LexError::Syntax {
                    offset: here.at,
                    reason: expectation(self.state),
                });
            }
        }
        Ok(())
    }

    fn begin_literal(&mut self, literal: Literal, here: Place<'_>) {
        self.scalar_start = here.at;
        self.state = State::Literal(literal, 1);
    }

    fn open<S: Sink>(
        &mut self,
        container: Container,
        next: State,
        here: Place<'_>,
        sink: &mut S,
    ) -> Result<(), LexError<S::Stop>> {
        if self.stack.len() >= self.max_depth {
            return Err(LexError::Depth { offset: here.at });
        }
        sink.open(container, here)?;
        self.stack.push(container);
        self.state = next;
        Ok(())
    }

    fn close<S: Sink>(&mut self, after: Place<'_>, sink: &mut S) -> Result<(), LexError<S::Stop>> {
        if let Some(container) = self.stack.pop() {
            sink.close(container, after)?;
        }
        self.value_done();
        Ok(())
    }

    fn value_done(&mut self) {
        self.state = if self.stack.is_empty() {
            State::Done
        } else {
            State::Next
        };
    }

    fn in_string<S: Sink>(
        &mut self,
        chunk: &[u8],
        pos: usize,
        sink: &mut S,
    ) -> Result<usize, LexError<S::Stop>> {
        let is_key = self.state == State::KeyString;
        let scratch = &mut self.scratch;
        let outcome = if is_key {
            self.string.advance(&chunk[pos..], |piece| {
                let room = (MAX_KEY + 1).saturating_sub(scratch.len());
                scratch.extend_from_slice(&piece[..piece.len().min(room)]);
            })
        } else if self.wanted {
            self.string.advance(&chunk[pos..], |piece| sink.text(piece))
        } else {
            self.string.advance(&chunk[pos..], |_| ())
        };
        let (used, ended) = outcome.map_err(|fault| LexError::Syntax {
            offset: self.base + pos + fault.at - fault.back,
            reason: fault.error.reason(),
        })?;
        let end = pos + used;
        if !ended {
            return Ok(end);
        }
        if is_key {
            self.state = State::Colon;
            sink.key(if self.scratch.len() > MAX_KEY {
                b""
            } else {
                &self.scratch
            })?;
        } else {
            self.value_done();
            sink.string_end(Place {
                chunk,
                base: self.base,
                at: self.base + end,
            })?;
        }
        Ok(end)
    }

    fn in_number<S: Sink>(
        &mut self,
        mut number: NumberState,
        chunk: &[u8],
        start: usize,
        sink: &mut S,
    ) -> Result<usize, LexError<S::Stop>> {
        for (index, &byte) in chunk[start..].iter().enumerate() {
            let pos = start + index;
            if let Some(next) = number.step(byte) {
                number = next;
                if self.scratch.len() <= MAX_NUMBER {
                    self.scratch.push(byte);
                }
                continue;
            }
            if !number.is_complete() {
                return Err(LexError::Syntax {
                    offset: self.base + pos,
                    reason: "a digit is missing in a number",
                });
            }
            self.number_done(
                Place {
                    chunk,
                    base: self.base,
                    at: self.base + pos,
                },
                sink,
            )?;
            return Ok(pos);
        }
        self.state = State::Number(number);
        Ok(chunk.len())
    }

    fn number_done<S: Sink>(&mut self, end: Place<'_>, sink: &mut S) -> Result<(), LexError<S::Stop>> {
        self.value_done();
        let text: &[u8] = if self.scratch.len() > MAX_NUMBER {
            b""
        } else {
            &self.scratch
        };
        sink.number(text, self.scalar_start, end)?;
        Ok(())
    }

    fn in_literal<S: Sink>(
        &mut self,
        literal: Literal,
        matched: u8,
        chunk: &[u8],
        pos: usize,
        sink: &mut S,
    ) -> Result<usize, LexError<S::Stop>> {
        let expected = literal.bytes();
        if chunk[pos] != expected[usize::from(matched)] {
            return Err(LexError::Syntax {
                offset: self.base + pos,
                reason: "a value must be JSON",
            });
        }
        let matched = matched + 1;
        if usize::from(matched) < expected.len() {
            self.state = State::Literal(literal, matched);
            return Ok(pos + 1);
        }
        self.value_done();
        sink.literal(
            literal,
            self.scalar_start,
            Place {
                chunk,
                base: self.base,
                at: self.base + pos + 1,
            },
        )?;
        Ok(pos + 1)
    }
}

const fn expectation(state: State) -> &'static str {
    match state {
        State::FirstKey => "expected a member name or '}'",
        State::Key => "expected a member name",
        State::Colon => "expected ':' after a member name",
        State::Next => "expected ',' or the closing bracket",
        State::FirstItem => "expected a value or ']'",
        State::Done => "unexpected data after the JSON value",
        _ => "expected a value",
    }
}

#[cfg(test)]
mod tests;
