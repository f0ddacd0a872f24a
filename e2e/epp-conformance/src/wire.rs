//! The messages of `envoy.service.ext_proc.v3`, written by hand and apart from any picker's own.
//!
//! Field numbers are Envoy's (`service/ext_proc/v3/external_processor.proto`). Fields that a picker must not use in
//! full duplex mode (`body`, `clear_body`, `status`, `mode_override`) are declared so that their use is seen.

use std::collections::HashMap;

use bytes::Bytes;
use prost_types::{Duration, Struct};

/// Method of the service.
pub const PROCESS: &str = "/envoy.service.ext_proc.v3.ExternalProcessor/Process";

/// What a proxy sends.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ProcessingRequest {
    /// The event.
    #[prost(oneof = "Event", tags = "2, 3, 4, 5, 6, 7")]
    pub event: Option<Event>,
    /// Metadata that the proxy forwards.
    #[prost(message, optional, tag = "8")]
    pub metadata_context: Option<Metadata>,
    /// How the proxy is configured; on a stream's first message only.
    #[prost(message, optional, tag = "11")]
    pub protocol_config: Option<ProtocolConfiguration>,
}

/// One step of a request or response.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Event {
    /// The request's head.
    #[prost(message, tag = "2")]
    RequestHeaders(HttpHeaders),
    /// The response's head.
    #[prost(message, tag = "3")]
    ResponseHeaders(HttpHeaders),
    /// A chunk of the request body.
    #[prost(message, tag = "4")]
    RequestBody(HttpBody),
    /// A chunk of the response body.
    #[prost(message, tag = "5")]
    ResponseBody(HttpBody),
    /// The request's trailers.
    #[prost(message, tag = "6")]
    RequestTrailers(HttpTrailers),
    /// The response's trailers.
    #[prost(message, tag = "7")]
    ResponseTrailers(HttpTrailers),
}

/// `config.core.v3.Metadata`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Metadata {
    /// By filter namespace.
    #[prost(map = "string, message", tag = "1")]
    pub filter_metadata: HashMap<String, Struct>,
}

/// How bodies are sent: 4 is `FULL_DUPLEX_STREAMED`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ProtocolConfiguration {
    /// Request bodies.
    #[prost(int32, tag = "1")]
    pub request_body_mode: i32,
    /// Response bodies.
    #[prost(int32, tag = "2")]
    pub response_body_mode: i32,
}

/// A head.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HttpHeaders {
    /// Pseudo headers and headers.
    #[prost(message, optional, tag = "1")]
    pub headers: Option<HeaderMap>,
    /// No body follows.
    #[prost(bool, tag = "3")]
    pub end_of_stream: bool,
}

/// Headers in order.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HeaderMap {
    /// The headers.
    #[prost(message, repeated, tag = "1")]
    pub headers: Vec<HeaderValue>,
}

/// A header.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HeaderValue {
    /// Name.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Value as text; Envoy reads it only without `raw_value`.
    #[prost(string, tag = "2")]
    pub value: String,
    /// Value as bytes.
    #[prost(bytes = "bytes", tag = "3")]
    pub raw_value: Bytes,
}

/// A chunk of a body.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HttpBody {
    /// Its bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub body: Bytes,
    /// The last one.
    #[prost(bool, tag = "2")]
    pub end_of_stream: bool,
}

/// Trailers.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HttpTrailers {
    /// The trailers.
    #[prost(message, optional, tag = "1")]
    pub trailers: Option<HeaderMap>,
}

/// What a picker sends.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ProcessingResponse {
    /// The answer.
    #[prost(oneof = "Answer", tags = "1, 2, 3, 4, 5, 6, 7")]
    pub answer: Option<Answer>,
    /// Metadata for the proxy's other filters, by namespace.
    #[prost(message, optional, tag = "8")]
    pub dynamic_metadata: Option<Struct>,
    /// A change of the processing mode.
    #[prost(message, optional, tag = "9")]
    pub mode_override: Option<Opaque>,
    /// A longer time for this message.
    #[prost(message, optional, tag = "10")]
    pub override_message_timeout: Option<Duration>,
}

/// A message whose presence is all that matters.
#[derive(Clone, PartialEq, Eq, Hash, Copy, prost::Message)]
pub struct Opaque {}

/// One answer.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Answer {
    /// To the request's head.
    #[prost(message, tag = "1")]
    RequestHeaders(CommonAnswer),
    /// To the response's head.
    #[prost(message, tag = "2")]
    ResponseHeaders(CommonAnswer),
    /// A chunk of the request body.
    #[prost(message, tag = "3")]
    RequestBody(CommonAnswer),
    /// A chunk of the response body.
    #[prost(message, tag = "4")]
    ResponseBody(CommonAnswer),
    /// To the request's trailers.
    #[prost(message, tag = "5")]
    RequestTrailers(TrailersAnswer),
    /// To the response's trailers.
    #[prost(message, tag = "6")]
    ResponseTrailers(TrailersAnswer),
    /// Ends the request with this response.
    #[prost(message, tag = "7")]
    Immediate(ImmediateResponse),
}

/// `HeadersResponse` and `BodyResponse`, which have the same shape.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CommonAnswer {
    /// What changes.
    #[prost(message, optional, tag = "1")]
    pub response: Option<CommonResponse>,
}

/// Changes to a head or a body.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CommonResponse {
    /// 0 `CONTINUE`, 1 `CONTINUE_AND_REPLACE`.
    #[prost(int32, tag = "1")]
    pub status: i32,
    /// Header changes.
    #[prost(message, optional, tag = "2")]
    pub header_mutation: Option<HeaderMutation>,
    /// Body change.
    #[prost(message, optional, tag = "3")]
    pub body_mutation: Option<BodyMutation>,
    /// Choose the route again.
    #[prost(bool, tag = "5")]
    pub clear_route_cache: bool,
}

/// Header changes.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HeaderMutation {
    /// Headers to set.
    #[prost(message, repeated, tag = "1")]
    pub set_headers: Vec<HeaderValueOption>,
    /// Headers to remove.
    #[prost(string, repeated, tag = "2")]
    pub remove_headers: Vec<String>,
}

/// A header to set.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HeaderValueOption {
    /// The header.
    #[prost(message, optional, tag = "1")]
    pub header: Option<HeaderValue>,
    /// The older way to say whether to append.
    #[prost(message, optional, tag = "2")]
    pub append: Option<bool>,
    /// 0 append or add, 1 add if absent, 2 overwrite or add, 3 overwrite if there.
    #[prost(int32, tag = "3")]
    pub append_action: i32,
}

/// A body change.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BodyMutation {
    /// The change.
    #[prost(oneof = "BodyChange", tags = "1, 2, 3")]
    pub change: Option<BodyChange>,
}

/// Ways to change a body.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum BodyChange {
    /// Another body; an error in full duplex mode.
    #[prost(bytes = "bytes", tag = "1")]
    Body(Bytes),
    /// No body; an error in full duplex mode.
    #[prost(bool, tag = "2")]
    Clear(bool),
    /// A chunk.
    #[prost(message, tag = "3")]
    Streamed(HttpBody),
}

/// Answer to trailers.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TrailersAnswer {
    /// Trailer changes.
    #[prost(message, optional, tag = "1")]
    pub header_mutation: Option<HeaderMutation>,
}

/// A response instead of the engine's.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ImmediateResponse {
    /// HTTP status.
    #[prost(message, optional, tag = "1")]
    pub status: Option<HttpStatus>,
    /// Header changes.
    #[prost(message, optional, tag = "2")]
    pub headers: Option<HeaderMutation>,
    /// Body.
    #[prost(bytes = "bytes", tag = "3")]
    pub body: Bytes,
}

/// `type.v3.HttpStatus`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HttpStatus {
    /// The code.
    #[prost(int32, tag = "1")]
    pub code: i32,
}

impl HeaderValue {
    /// The value, wherever it is.
    pub fn bytes(&self) -> &[u8] {
        if self.raw_value.is_empty() {
            self.value.as_bytes()
        } else {
            &self.raw_value
        }
    }
}
