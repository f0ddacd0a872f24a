//! Error bodies in the shape that OpenAI clients parse.

use bytes::Bytes;
use serde::Serialize;

/// The `code` member: OpenAI sends a text or null, vLLM the HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum ErrorCode<'a> {
    /// `null`
    None,
    /// A word such as `model_not_found`.
    Text(&'a str),
    /// An HTTP status.
    Status(u16),
}

#[derive(Serialize)]
struct Envelope<'a> {
    error: Body<'a>,
}

#[derive(Serialize)]
struct Body<'a> {
    message: &'a str,
    r#type: &'a str,
    param: Option<&'a str>,
    code: ErrorCode<'a>,
}

/// `{"error":{"message","type","param","code"}}`. `kind` is the `type` member, e.g.
/// `invalid_request_error` or vLLM's `BadRequestError`; `param` names the field at fault.
///
/// ```
/// use llmd_openai::{ErrorCode, error_body};
/// let body = error_body("no model", "invalid_request_error", Some("model"), ErrorCode::Status(400));
/// let text = r#"{"error":{"message":"no model","type":"invalid_request_error","param":"model","code":400}}"#;
/// assert_eq!(body, text);
/// ```
pub fn error_body(message: &str, kind: &str, param: Option<&str>, code: ErrorCode<'_>) -> Bytes {
    let envelope = Envelope {
        error: Body {
            message,
            r#type: kind,
            param,
            code,
        },
    };
    // Strings and numbers always serialise.
    serde_json::to_vec(&envelope).unwrap_or_default().into()
}
