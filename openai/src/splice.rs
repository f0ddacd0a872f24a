//! Changes a model name in a body and nothing else.

use bytes::Bytes;

use crate::Span;

/// `name` as a JSON string, quotes included.
pub fn json_string(name: &str) -> Bytes {
    serde_json::Value::from(name).to_string().into()
}

/// The body with the raw string at `span` replaced by `new_model`; every other byte is a shared
/// slice of `body`. A span that does not lie in the body replaces what part of it does.
///
/// ```
/// use bytes::Bytes;
/// use llmd_openai::{Span, splice_model};
/// let body = [Bytes::from_static(b"{\"model\":\"a\"}")];
/// let new = splice_model(&body, Span { start: 9, end: 12 }, "b\"c");
/// assert_eq!(new.concat(), b"{\"model\":\"b\\\"c\"}");
/// ```
pub fn splice_model(body: &[Bytes], span: Span, new_model: &str) -> Vec<Bytes> {
    let mut spliced = Vec::with_capacity(body.len() + 2);
    let mut replacement = Some(json_string(new_model));
    let mut start = 0;
    for chunk in body {
        let end = start + chunk.len();
        let before = span.start.clamp(start, end) - start;
        let after = span.end.clamp(start, end) - start;
        if before > 0 {
            spliced.push(chunk.slice(..before));
        }
        if span.start < end
            && let Some(name) = replacement.take()
        {
            spliced.push(name);
        }
        if after < chunk.len() {
            spliced.push(chunk.slice(after..));
        }
        start = end;
    }
    spliced
}
