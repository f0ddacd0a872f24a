//! Answers that the forwarder or a flight gives itself.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use llmd_openai::{ErrorCode, error_body};

/// A complete answer that needs no target.
#[derive(Clone, Debug)]
pub struct LocalReply {
    /// Status of the answer.
    pub status: StatusCode,
    /// Headers besides `content-length`; a later one replaces an earlier one of its name.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Body of the answer.
    pub body: Bytes,
}

impl LocalReply {
    /// An OpenAI-shaped JSON error.
    pub fn error(status: StatusCode, message: &str) -> Self {
        Self::json(status, error_json(status, message))
    }

    /// A JSON body.
    pub fn json(status: StatusCode, body: impl Into<Bytes>) -> Self {
        let json = HeaderValue::from_static("application/json");
        Self {
            status,
            headers: vec![(CONTENT_TYPE, json)],
            body: body.into(),
        }
    }

    /// Adds or replaces a header.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Says when to come back.
    #[must_use]
    pub fn retry_after(self, seconds: u32) -> Self {
        self.with_header(RETRY_AFTER, HeaderValue::from(seconds))
    }

    pub(crate) fn into_response<B: From<Bytes>>(self) -> Response<B> {
        let mut response = Response::new(B::from(self.body));
        *response.status_mut() = self.status;
        response.headers_mut().extend(self.headers);
        response
    }
}

/// The error object of the OpenAI API with the HTTP status as its code, as vLLM sends it.
pub(crate) fn error_json(status: StatusCode, message: &str) -> Bytes {
    let kind = match status.as_u16() {
        401 => "authentication_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        400..500 => "invalid_request_error",
        _ => "server_error",
    };
    error_body(message, kind, None, ErrorCode::Status(status.as_u16()))
}
