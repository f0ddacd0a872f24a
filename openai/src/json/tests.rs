use std::{convert::Infallible, fmt::Write};

use super::*;

/// Writes events as text, strings decoded.
#[derive(Default)]
struct Log(String, Vec<u8>);

impl Sink for Log {
    type Stop = Infallible;
    fn open(&mut self, container: Container, place: Place<'_>) -> Result<(), Infallible> {
        write!(
            self.0,
            "{}{} ",
            if container == Container::Object { '{' } else { '[' },
            place.at
        )
        .unwrap();
        Ok(())
    }
    fn close(&mut self, container: Container, place: Place<'_>) -> Result<(), Infallible> {
        write!(
            self.0,
            "{}{} ",
            if container == Container::Object { '}' } else { ']' },
            place.at
        )
        .unwrap();
        Ok(())
    }
    fn key(&mut self, key: &[u8]) -> Result<(), Infallible> {
        write!(self.0, "{}: ", String::from_utf8_lossy(key)).unwrap();
        Ok(())
    }
    fn string_start(&mut self, place: Place<'_>) -> Result<bool, Infallible> {
        write!(self.0, "s{} ", place.at).unwrap();
        self.1.clear();
        Ok(true)
    }
    fn text(&mut self, piece: &[u8]) {
        self.1.extend_from_slice(piece);
    }
    fn string_end(&mut self, place: Place<'_>) -> Result<(), Infallible> {
        write!(
            self.0,
            "{}{} ",
            String::from_utf8(std::mem::take(&mut self.1)).unwrap(),
            place.at
        )
        .unwrap();
        Ok(())
    }
    fn number(&mut self, text: &[u8], start: usize, place: Place<'_>) -> Result<(), Infallible> {
        write!(self.0, "{}@{start}-{} ", String::from_utf8_lossy(text), place.at).unwrap();
        Ok(())
    }
    fn literal(&mut self, literal: Literal, start: usize, place: Place<'_>) -> Result<(), Infallible> {
        write!(self.0, "{literal:?}@{start}-{} ", place.at).unwrap();
        Ok(())
    }
    fn chunk_end(&mut self, _: Place<'_>) {}
}

fn lex(chunks: &[&[u8]]) -> Result<String, (usize, &'static str)> {
    let mut lexer = Lexer::new(8);
    let mut log = Log::default();
    let outcome = chunks.iter().try_for_each(|chunk| lexer.push(chunk, &mut log));
    match outcome.and_then(|()| lexer.finish(&mut log)) {
        Ok(()) => Ok(log.0),
        Err(LexError::Syntax { offset, reason }) => Err((offset, reason)),
        Err(LexError::Depth { offset }) => Err((offset, "depth")),
        Err(LexError::Stopped(never)) => match never {},
    }
}

#[test]
fn events_and_offsets() {
    let body = br#" {"a":[1,-2.5e+3,true],"b":{"c":"x\ny"},"d":null} "#;
    let wanted = "{1 a: [6 1@7-8 -2.5e+3@9-16 True@17-21 ]22 b: {27 c: s32 x\ny38 }39 d: Null@44-48 }49 ";
    assert_eq!(lex(&[body]).unwrap(), wanted);
    for cut in 0..body.len() {
        assert_eq!(
            lex(&[&body[..cut], &body[cut..]]).unwrap(),
            wanted,
            "cut at {cut}"
        );
    }
}

#[test]
fn escapes_decode_as_in_go() {
    for (raw, wanted) in [
        (r#""\"\\\/\b\f\n\r\t""#, "\"\\/\u{8}\u{c}\n\r\t"),
        (r#""\u00e4\u20AC""#, "ä€"),
        (r#""\ud83d\ude00""#, "😀"),
        (r#""\ud83dx""#, "\u{fffd}x"),
        (r#""\ud83d\n""#, "\u{fffd}\n"),
        (r#""\ud83d\ud83d\ude00""#, "\u{fffd}😀"),
        (r#""\ud83d\u0041""#, "\u{fffd}A"),
        (r#""\ude00""#, "\u{fffd}"),
        (r#""\ud83d""#, "\u{fffd}"),
        ("\"ä€😀\u{7f}\"", "ä€😀\u{7f}"),
    ] {
        let bytes = raw.as_bytes();
        let wanted = format!("s0 {wanted}{} ", bytes.len());
        for cut in 0..bytes.len() {
            assert_eq!(
                lex(&[&bytes[..cut], &bytes[cut..]]).unwrap(),
                wanted,
                "{raw} cut at {cut}"
            );
        }
    }
}

#[test]
fn malformed_documents_are_refused_with_their_offset() {
    for (body, offset) in [
        (&b""[..], 0),
        (b"  ", 2),
        (b"{", 1),
        (b"[1,]", 3),
        (b"{\"a\":1,}", 7),
        (b"{\"a\" 1}", 5),
        (b"{a:1}", 1),
        (b"[1 2]", 3),
        (b"[1}", 2),
        (b"{\"a\":1]", 6),
        (b"{} x", 3),
        (b"{}{}", 2),
        (b"01", 1),
        (b"-01", 2),
        (b"-", 1),
        (b"1.", 2),
        (b"[1.e]", 3),
        (b"[1e]", 3),
        (b"+1", 0),
        (b"nul", 3),
        (b"nulL", 3),
        (b"truex", 4),
        (b"\"a", 2),
        (b"\"\\x\"", 2),
        (b"\"\\u12g4\"", 5),
        (b"\"a\nb\"", 2),
        (b"\"\xff\"", 1),
        (b"\"ab\xc3\"", 3),
        (b"\"\xed\xa0\x80\"", 1),
        (b"\xef\xbb\xbf{}", 0),
        (b"[[[[[[[[[", 8),
    ] {
        let error = lex(&[body]).unwrap_err();
        assert_eq!(error.0, offset, "{} ({})", String::from_utf8_lossy(body), error.1);
        let single: Vec<&[u8]> = body.chunks(1).collect();
        assert_eq!(lex(&single).unwrap_err(), error);
    }
}

#[test]
fn overlong_names_and_numbers_are_reported_empty() {
    let name = "n".repeat(MAX_KEY + 1);
    let digits = "1".repeat(MAX_NUMBER + 1);
    let body = format!("{{\"{name}\":{digits}}}");
    assert_eq!(
        lex(&[body.as_bytes()]).unwrap(),
        format!("{{0 : @69-102 }}{} ", body.len())
    );
}

/// Bytes that come alone are checked one by one; a string at hand as a whole is checked ahead of its runs.
#[test]
fn long_prose_reads_the_same_however_it_is_checked() {
    let prose = "prose of some length, with é, € and 😀, ends its lines as people do.\\n".repeat(40);
    let body = format!("{{\"a\":\"{prose}\",\n \"b\":[\"{prose}\", \"\\t\"]}}");
    let alike = |body: &[u8]| {
        let single: Vec<&[u8]> = body.chunks(1).collect();
        assert_eq!(lex(&[body]), lex(&single));
        lex(&[body]).is_ok()
    };
    assert!(alike(body.as_bytes()));
    let mut refused = 0;
    for at in (0..body.len()).step_by(37) {
        for byte in [0x01, b'\n', 0xff, 0xc3, 0x80, b'"', b'\\', 0x7f] {
            let mut damaged = body.clone().into_bytes();
            damaged[at] = byte;
            refused += usize::from(!alike(&damaged));
        }
    }
    assert!(refused > 300, "{refused}");
}
