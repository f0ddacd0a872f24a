//! The inside of a JSON string: finds its end, checks it and decodes it, at memory speed over plain text.

/// What is wrong inside a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TextError {
    /// A byte below 0x20.
    Control,
    /// A backslash followed by something that is no escape.
    Escape,
    /// `\u` not followed by four hexadecimal digits.
    Hex,
    /// Bytes that are not UTF-8.
    Utf8,
}

impl TextError {
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::Control => "control character in a string",
            Self::Escape => "unknown escape in a string",
            Self::Hex => "\\u needs four hexadecimal digits",
            Self::Utf8 => "invalid UTF-8 in a string",
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
enum Within {
    #[default]
    Plain,
    /// After a backslash.
    Escape,
    /// Inside `\uXXXX`: value and digits read.
    Unicode(u16, u8),
}

/// Position inside a string that may be cut anywhere.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StringState {
    within: Within,
    /// First bytes of a UTF-8 sequence whose rest is in the next chunk.
    partial: [u8; 4],
    partial_len: u8,
    /// A high surrogate that waits for its low half.
    high: Option<u16>,
}

/// A fault inside a string: it lies `back` bytes before offset `at` of the bytes at hand, which may be
/// in an earlier chunk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    pub(super) at: usize,
    pub(super) back: usize,
    pub(super) error: TextError,
}

impl Fault {
    const fn here(at: usize, error: TextError) -> Self {
        Self { at, back: 0, error }
    }
}

/// Runs are checked in blocks of this size, so that the passes over them stay in the first-level cache.
const BLOCK: usize = 8 * 1024;

/// Prose has an escaped line end every hundred bytes or so. From the second run of a string on, that many bytes are
/// checked at once, and the runs among them are only found and copied.
const AHEAD: usize = 1024;

const REPLACEMENT: char = '\u{FFFD}';

impl StringState {
    /// Consumes `bytes` up to and including the closing quote, giving decoded pieces to `emit`.
    /// Returns how many bytes were used and whether the string ended.
    pub(super) fn advance(
        &mut self,
        bytes: &[u8],
        mut emit: impl FnMut(&[u8]),
    ) -> Result<(usize, bool), Fault> {
        let mut pos = 0;
        let mut is_first = true;
        // All bytes before it, from the second run on, are known to be good.
        let mut good_to = 0;
        while pos < bytes.len() {
            match self.within {
                Within::Plain => {
                    let window = &bytes[pos..];
                    let run = memchr::memchr2(b'"', b'\\', window).unwrap_or(window.len());
                    if run > 0 {
                        self.flush_high(&mut emit);
                        if !is_first && pos + run > good_to {
                            good_to = pos + good(&window[..window.len().min(AHEAD)]);
                        }
                        if pos + run <= good_to {
                            emit(&window[..run]);
                        } else {
                            self.plain(&window[..run], &mut emit).map_err(|fault| Fault {
                                at: pos + fault.at,
                                ..fault
                            })?;
                        }
                    }
                    is_first = false;
                    pos += run;
                    let Some(&byte) = bytes.get(pos) else { break };
                    if self.partial_len > 0 {
                        let back = usize::from(self.partial_len);
                        return Err(Fault {
                            at: pos,
                            back,
                            error: TextError::Utf8,
                        });
                    }
                    pos += 1;
                    if byte == b'"' {
                        self.flush_high(&mut emit);
                        return Ok((pos, true));
                    }
                    self.within = Within::Escape;
                }
                Within::Escape => {
                    let decoded = match bytes[pos] {
                        b'n' => b'\n',
                        b'"' => b'"',
                        b'\\' => b'\\',
                        b'/' => b'/',
                        b't' => b'\t',
                        b'r' => b'\r',
                        b'b' => 0x08,
                        b'f' => 0x0c,
                        b'u' => {
                            self.within = Within::Unicode(0, 0);
                            pos += 1;
                            continue;
                        }
                        _ => return Err(Fault::here(pos, TextError::Escape)),
                    };
                    self.flush_high(&mut emit);
                    emit(&[decoded]);
                    self.within = Within::Plain;
                    pos += 1;
                }
                Within::Unicode(value, digits) => {
                    let Some(digit) = char::from(bytes[pos]).to_digit(16) else {
                        return Err(Fault::here(pos, TextError::Hex));
                    };
                    let value = value << 4 | digit as u16;
                    self.within = if digits < 3 {
                        Within::Unicode(value, digits + 1)
                    } else {
                        self.code_unit(value, &mut emit);
                        Within::Plain
                    };
                    pos += 1;
                }
            }
        }
        Ok((pos, false))
    }

    /// A surrogate without its other half reads as U+FFFD, as in Go's `encoding/json`.
    fn flush_high(&mut self, emit: &mut impl FnMut(&[u8])) {
        if self.high.take().is_some() {
            emit_char(REPLACEMENT, emit);
        }
    }

    fn code_unit(&mut self, unit: u16, emit: &mut impl FnMut(&[u8])) {
        if let Some(high) = self.high.take() {
            if let Some(Ok(paired)) = char::decode_utf16([high, unit]).next() {
                emit_char(paired, emit);
                return;
            }
            emit_char(REPLACEMENT, emit);
        }
        match unit {
            0xD800..=0xDBFF => self.high = Some(unit),
            _ => emit_char(char::from_u32(u32::from(unit)).unwrap_or(REPLACEMENT), emit),
        }
    }

    /// Bytes without quote and backslash.
    fn plain(&mut self, run: &[u8], emit: &mut impl FnMut(&[u8])) -> Result<(), Fault> {
        let mut pos = 0;
        while self.partial_len > 0 && pos < run.len() {
            self.partial[usize::from(self.partial_len)] = run[pos];
            self.partial_len += 1;
            let sequence = &self.partial[..usize::from(self.partial_len)];
            match std::str::from_utf8(sequence) {
                Ok(_) => {
                    emit(sequence);
                    self.partial_len = 0;
                }
                Err(error) if error.error_len().is_none() => {}
                Err(_) => {
                    let back = sequence.len() - 1;
                    return Err(Fault {
                        at: pos,
                        back,
                        error: TextError::Utf8,
                    });
                }
            }
            pos += 1;
        }
        while pos < run.len() {
            let block = &run[pos..run.len().min(pos + BLOCK)];
            if has_control(block) {
                let control = block.iter().position(|&byte| byte < 0x20).unwrap_or_default();
                let fault = match std::str::from_utf8(&block[..control]) {
                    Ok(_) => Fault::here(pos + control, TextError::Control),
                    Err(error) => Fault::here(pos + error.valid_up_to(), TextError::Utf8),
                };
                return Err(fault);
            }
            let valid = match std::str::from_utf8(block) {
                Ok(_) => block.len(),
                Err(error) if error.error_len().is_none() && error.valid_up_to() > 0 => error.valid_up_to(),
                Err(error) if error.error_len().is_none() => {
                    // The run ends inside a sequence; whether its rest comes is known later.
                    self.partial[..block.len()].copy_from_slice(block);
                    self.partial_len = block.len() as u8;
                    return Ok(());
                }
                Err(error) => return Err(Fault::here(pos + error.valid_up_to(), TextError::Utf8)),
            };
            emit(&block[..valid]);
            pos += valid;
        }
        Ok(())
    }
}

/// How many of the first bytes are UTF-8 without control characters; 0 where there is a control character, because what
/// is before it is checked run by run then.
fn good(ahead: &[u8]) -> usize {
    if has_control(ahead) {
        return 0;
    }
    std::str::from_utf8(ahead).map_or_else(|error| error.valid_up_to(), str::len)
}

/// Written without early exit, so that it compiles to vector code.
fn has_control(block: &[u8]) -> bool {
    block.iter().fold(u8::MAX, |least, &byte| least.min(byte)) < 0x20
}

fn emit_char(character: char, emit: &mut impl FnMut(&[u8])) {
    let mut buffer = [0; 4];
    emit(character.encode_utf8(&mut buffer).as_bytes());
}
