//! Sets members of a JSON object; every other byte is a shared slice of the body that came.

use std::convert::Infallible;
use std::ops::Range;

use bytes::Bytes;

use crate::json::{Container, LexError, Lexer, Literal, Place, Sink};

/// One change to an object.
#[derive(Clone, Copy, Debug)]
pub struct Edit<'a> {
    /// The member: a name, or the name of an object and a name in it.
    pub path: &'a [&'a str],
    /// Its new value, as JSON.
    pub value: &'a str,
    /// A member that is not there is left out instead of added.
    pub only_if_present: bool,
}

impl<'a> Edit<'a> {
    /// Sets the member, whether it is there or not.
    pub const fn set(path: &'a [&'a str], value: &'a str) -> Self {
        Self {
            path,
            value,
            only_if_present: false,
        }
    }

    /// Makes the member `null`, which engines read as absent, if it is there.
    pub const fn clear(path: &'a [&'a str]) -> Self {
        Self {
            path,
            value: "null",
            only_if_present: true,
        }
    }
}

/// Why a body cannot be edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// Not JSON.
    #[error("not valid JSON at byte {offset}: {reason}")]
    Syntax {
        /// Offset from the first byte.
        offset: usize,
        /// What is wrong there.
        reason: &'static str,
    },
    /// Something else than an object.
    #[error("the body is not a JSON object")]
    NotAnObject,
}

/// More nesting than this is refused.
const MAX_DEPTH: usize = 256;

/// The body with `edits` made. A member that comes twice is changed twice: readers differ in which one they take.
///
/// ```
/// use bytes::Bytes;
/// use llmd_openai::{Edit, edit};
/// let body = [Bytes::from_static(b"{\"stream\":true,\"n\":1}")];
/// let edits = [Edit::set(&["stream"], "false"), Edit::set(&["max_tokens"], "1")];
/// let new = edit(&body, &edits).expect("an object");
/// assert_eq!(new.concat(), b"{\"stream\":false,\"n\":1,\"max_tokens\":1}");
/// ```
///
/// # Errors
/// The body is no JSON object.
pub fn edit(body: &[Bytes], edits: &[Edit<'_>]) -> Result<Vec<Bytes>, EditError> {
    let mut found = Found::new(edits);
    let mut lexer = Lexer::new(MAX_DEPTH);
    let read = body
        .iter()
        .try_for_each(|chunk| lexer.push(chunk, &mut found))
        .and_then(|()| lexer.finish(&mut found));
    match read {
        Ok(()) => {}
        Err(LexError::Syntax { offset, reason }) => return Err(EditError::Syntax { offset, reason }),
        Err(LexError::Depth { offset }) => {
            return Err(EditError::Syntax {
                offset,
                reason: "nested too deeply",
            });
        }
        Err(LexError::Stopped(never)) => match never {},
    }
    let end = found.end.ok_or(EditError::NotAnObject)?;
    Ok(replace(body, &found.replacements(end)))
}

/// Where an object's members are inserted, and whether it has one.
#[derive(Clone, Copy, Debug)]
struct End {
    at: usize,
    is_empty: bool,
}

/// What one edit met.
#[derive(Clone, Debug, Default)]
struct Spot {
    values: Vec<Range<usize>>,
    /// The object that its path leads into.
    parent: Option<End>,
}

struct Found<'a> {
    edits: &'a [Edit<'a>],
    spots: Vec<Spot>,
    depth: usize,
    /// Current member names of the outer object and of one in it.
    names: [Vec<u8>; 2],
    is_object: [bool; 2],
    is_empty: [bool; 2],
    /// Start of the value being read at each of these depths.
    started: [usize; 2],
    /// The end of the body's object.
    end: Option<End>,
}

impl<'a> Found<'a> {
    fn new(edits: &'a [Edit<'a>]) -> Self {
        Self {
            edits,
            spots: vec![Spot::default(); edits.len()],
            depth: 0,
            names: Default::default(),
            is_object: [false; 2],
            is_empty: [true; 2],
            started: [0; 2],
            end: None,
        }
    }

    /// Whether the current place at `depth` is a member of an object that an edit can name.
    fn is_member(&self, depth: usize) -> bool {
        (1..=2).contains(&depth) && self.is_object[..depth].iter().all(|is| *is)
    }

    fn value_ended(&mut self, depth: usize, span: Range<usize>) {
        if !self.is_member(depth) {
            return;
        }
        for (edit, spot) in self.edits.iter().zip(&mut self.spots) {
            let is_it = edit.path.len() == depth
                && edit
                    .path
                    .iter()
                    .zip(&self.names)
                    .all(|(wanted, name)| wanted.as_bytes() == name);
            if is_it {
                spot.values.push(span.clone());
            }
        }
    }

    fn inner_object_ended(&mut self, at: usize) {
        for (edit, spot) in self.edits.iter().zip(&mut self.spots) {
            if let [parent, _] = edit.path
                && parent.as_bytes() == self.names[0]
            {
                spot.parent = Some(End {
                    at,
                    is_empty: self.is_empty[1],
                });
            }
        }
    }

    /// An object that is not there, with all that is set in it; `None` where an edit before this one made it.
    fn missing_parent(&self, edit: &Edit<'_>, parent: &str) -> Option<String> {
        let mut siblings = self
            .edits
            .iter()
            .filter(|other| !other.only_if_present && matches!(other.path, [of, _] if *of == parent));
        let members: Vec<_> = siblings
            .clone()
            .map(|other| format!("\"{}\":{}", other.path[1], other.value))
            .collect();
        let is_first = siblings.next().is_some_and(|first| std::ptr::eq(first, edit));
        is_first.then(|| format!("\"{parent}\":{{{}}}", members.join(",")))
    }

    /// What is put where, in the order of the body.
    fn replacements(&self, end: End) -> Vec<(Range<usize>, Bytes)> {
        let mut made = Vec::new();
        let mut ends: Vec<End> = Vec::new();
        for (edit, spot) in self.edits.iter().zip(&self.spots) {
            let value = Bytes::copy_from_slice(edit.value.as_bytes());
            if !spot.values.is_empty() {
                made.extend(spot.values.iter().map(|span| (span.clone(), value.clone())));
                continue;
            }
            if edit.only_if_present {
                continue;
            }
            let (end, text) = match (edit.path, spot.parent) {
                ([_, name], Some(parent)) => (parent, format!("\"{name}\":{}", edit.value)),
                ([parent, _], None) => match self.missing_parent(edit, parent) {
                    Some(object) => (end, object),
                    None => continue,
                },
                ([name], _) => (end, format!("\"{name}\":{}", edit.value)),
                _ => continue,
            };
            let is_first = end.is_empty && ends.iter().all(|known| known.at != end.at);
            ends.push(end);
            let text = if is_first { text } else { format!(",{text}") };
            made.push((end.at..end.at, text.into()));
        }
        // Stable: what is added to one object keeps its order.
        made.sort_by_key(|(span, _)| span.start);
        made
    }
}

impl Sink for Found<'_> {
    type Stop = Infallible;

    fn open(&mut self, container: Container, place: Place<'_>) -> Result<(), Infallible> {
        if (1..=2).contains(&self.depth) {
            self.started[self.depth - 1] = place.at;
        }
        if self.depth < 2 {
            self.is_object[self.depth] = container == Container::Object;
            self.is_empty[self.depth] = true;
            self.names[self.depth].clear();
        }
        self.depth += 1;
        Ok(())
    }

    fn close(&mut self, container: Container, place: Place<'_>) -> Result<(), Infallible> {
        let inner = self.depth;
        self.depth -= 1;
        match inner {
            1 if container == Container::Object => {
                self.end = Some(End {
                    at: place.at - 1,
                    is_empty: self.is_empty[0],
                });
            }
            2 if container == Container::Object => self.inner_object_ended(place.at - 1),
            _ => {}
        }
        if (1..=2).contains(&self.depth) {
            self.value_ended(self.depth, self.started[self.depth - 1]..place.at);
        }
        Ok(())
    }

    fn key(&mut self, key: &[u8]) -> Result<(), Infallible> {
        if (1..=2).contains(&self.depth) {
            self.is_empty[self.depth - 1] = false;
            let name = &mut self.names[self.depth - 1];
            name.clear();
            name.extend_from_slice(key);
        }
        Ok(())
    }

    fn string_start(&mut self, place: Place<'_>) -> Result<bool, Infallible> {
        if (1..=2).contains(&self.depth) {
            self.started[self.depth - 1] = place.at;
        }
        Ok(false)
    }

    fn text(&mut self, _: &[u8]) {}

    fn string_end(&mut self, place: Place<'_>) -> Result<(), Infallible> {
        if (1..=2).contains(&self.depth) {
            self.value_ended(self.depth, self.started[self.depth - 1]..place.at);
        }
        Ok(())
    }

    fn number(&mut self, _: &[u8], start: usize, place: Place<'_>) -> Result<(), Infallible> {
        self.value_ended(self.depth, start..place.at);
        Ok(())
    }

    fn literal(&mut self, _: Literal, start: usize, place: Place<'_>) -> Result<(), Infallible> {
        self.value_ended(self.depth, start..place.at);
        Ok(())
    }

    fn chunk_end(&mut self, _: Place<'_>) {}
}

/// `body` with what lies in each span replaced; spans are in order and do not overlap.
fn replace(body: &[Bytes], replacements: &[(Range<usize>, Bytes)]) -> Vec<Bytes> {
    let mut out = Vec::with_capacity(body.len() + 2 * replacements.len());
    let mut at = 0;
    let whole: usize = body.iter().map(Bytes::len).sum();
    for (span, value) in replacements {
        slices(body, at..span.start, &mut out);
        if !value.is_empty() {
            out.push(value.clone());
        }
        at = span.end;
    }
    slices(body, at..whole, &mut out);
    out
}

/// The part `span` of a body in pieces.
fn slices(body: &[Bytes], span: Range<usize>, out: &mut Vec<Bytes>) {
    let mut start = 0;
    for piece in body {
        let end = start + piece.len();
        let (from, to) = (span.start.clamp(start, end), span.end.clamp(start, end));
        if from < to {
            out.push(piece.slice(from - start..to - start));
        }
        start = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(body: &str, edits: &[Edit<'_>]) -> String {
        let whole = edit(&[Bytes::copy_from_slice(body.as_bytes())], edits).expect("an object");
        let text = String::from_utf8(whole.concat()).expect("text");
        for cut in 0..body.len() {
            let (a, b) = body.as_bytes().split_at(cut);
            let pieces = [Bytes::copy_from_slice(a), Bytes::copy_from_slice(b)];
            let cut = edit(&pieces, edits).expect("an object").concat();
            assert_eq!(cut, text.as_bytes());
        }
        text
    }

    #[test]
    fn members_are_replaced_where_they_are_and_added_at_the_end() {
        let one = [Edit::set(&["a"], "1")];
        for (body, wanted) in [
            ("{}", "{\"a\":1}"),
            (" { } ", " { \"a\":1} "),
            ("{\"b\":2}", "{\"b\":2,\"a\":1}"),
            (
                "{\"a\" : \"x\\\"}\" , \"b\":[{\"a\":3}]}",
                "{\"a\" : 1 , \"b\":[{\"a\":3}]}",
            ),
            ("{\"a\":{\"a\":2},\"c\":null}", "{\"a\":1,\"c\":null}"),
            ("{\"a\":[1,2],\"a\":true}", "{\"a\":1,\"a\":1}"),
            ("{\"b\":{\"a\":3}}", "{\"b\":{\"a\":3},\"a\":1}"),
        ] {
            assert_eq!(edited(body, &one), wanted, "{body}");
        }
    }

    #[test]
    fn members_of_an_object_inside() {
        let edits = [
            Edit::set(&["p", "a"], "1"),
            Edit::set(&["p", "b"], "2"),
            Edit::clear(&["s"]),
        ];
        for (body, wanted) in [
            ("{}", "{\"p\":{\"a\":1,\"b\":2}}"),
            ("{\"p\":{}}", "{\"p\":{\"a\":1,\"b\":2}}"),
            (
                "{\"p\":{\"b\":9,\"c\":{\"a\":7}},\"s\":{\"x\":1}}",
                "{\"p\":{\"b\":2,\"c\":{\"a\":7},\"a\":1},\"s\":null}",
            ),
        ] {
            assert_eq!(edited(body, &edits[..]), wanted, "{body}");
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        let refused = |body: &'static [u8]| edit(&[Bytes::from_static(body)], &[]).expect_err("refused");
        assert_eq!(refused(b"[1]"), EditError::NotAnObject);
        assert!(matches!(
            refused(b"{\"a\":}"),
            EditError::Syntax { offset: 5, .. }
        ));
    }

    #[test]
    fn nothing_but_the_edit_is_copied() {
        let body = Bytes::from_static(b"{\"messages\":[\"long\"],\"stream\":true}");
        let new = edit(std::slice::from_ref(&body), &[Edit::set(&["stream"], "false")]).expect("an object");
        assert_eq!((new[0].as_ptr(), new.len()), (body.as_ptr(), 3));
        assert_eq!(new[2].as_ptr(), body[body.len() - 1..].as_ptr());
    }
}
