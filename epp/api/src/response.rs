//! What a decision leaves behind until its response is done.

use std::sync::Arc;
use std::time::Instant;

use llmd_openai::Usage;

/// Why an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Termination {
    /// The response reached its end.
    Complete,
    /// The client went away.
    ClientDisconnect,
    /// The request was rejected or the stream failed on our side.
    Error,
}

/// One value of dynamic metadata.
#[derive(Clone, Debug, PartialEq)]
pub struct Metadata {
    /// Metadata namespace, such as `envoy.lb`.
    pub namespace: Arc<str>,
    /// Key in the namespace.
    pub key: Arc<str>,
    /// The value.
    pub value: MetadataValue,
}

/// A value of dynamic metadata.
#[derive(Clone, Debug, PartialEq)]
pub enum MetadataValue {
    /// Text.
    Text(Arc<str>),
    /// A number.
    Number(f64),
}

/// The head of a response, as the transport shows it.
pub struct ResponseHead<'a> {
    /// HTTP status.
    pub status: u16,
    /// `content-type`.
    pub content_type: Option<&'a str>,
    /// The endpoint that served the request, where the proxy says so
    /// (`x-gateway-destination-endpoint-served`, Endpoint Picker Protocol).
    pub served: Option<&'a str>,
    /// The first value of a header, by lower-case name.
    pub header: &'a dyn Fn(&str) -> Option<&'a str>,
}

impl<'a> ResponseHead<'a> {
    /// A head of which nothing else is known.
    pub fn new(status: u16, content_type: Option<&'a str>) -> Self {
        Self {
            status,
            content_type,
            served: None,
            header: &|_| None,
        }
    }
}

impl std::fmt::Debug for ResponseHead<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseHead")
            .field("status", &self.status)
            .field("content_type", &self.content_type)
            .finish_non_exhaustive()
    }
}

/// How a response ended normally.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResponseEnd {
    /// Tokens, as the engine reported them; zeros when it did not.
    pub usage: Usage,
}

/// Follows one response. Dropping the hook ends whatever it still holds, exactly once, on any path.
pub trait ResponseHook: Send + Sync + std::fmt::Debug {
    /// The response's head arrived; headers for the client are appended to `set`.
    fn on_headers(&mut self, _head: &ResponseHead<'_>, _set: &mut Vec<(Arc<str>, String)>) {}

    /// The first response chunk arrived.
    fn on_first_chunk(&mut self, _now: Instant) {}

    /// A chunk that is not empty arrived, the first one included.
    fn on_chunk(&mut self, _now: Instant, _bytes: usize) {}

    /// The response ended normally; metadata for the proxy is appended to `metadata`.
    fn on_complete(&mut self, _now: Instant, _end: &ResponseEnd, _metadata: &mut Vec<Metadata>) {}

    /// The exchange ended any other way.
    fn on_aborted(&mut self, _now: Instant, _cause: Termination) {}
}
