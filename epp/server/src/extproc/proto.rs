//! The messages of `envoy.service.ext_proc.v3`, written by hand over [`Bytes`].
//!
//! Field numbers are Envoy's (`service/ext_proc/v3/external_processor.proto`). Only the fields we read
//! or write are declared; protobuf skips the others. Header keys and values are `Bytes` although
//! Envoy declares keys as `string`: the wire format is the same, and no copy is made on either side.

use std::collections::HashMap;

use bytes::Bytes;
use prost_types::Struct;

/// What Envoy sends.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ProcessingRequest {
    /// The event.
    #[prost(oneof = "Event", tags = "2, 3, 4, 5, 6, 7")]
    pub event: Option<Event>,
    /// Metadata that Envoy was told to forward.
    #[prost(message, optional, tag = "8")]
    pub metadata_context: Option<Metadata>,
    /// Attributes of the request or connection that Envoy was told to send, by filter.
    #[prost(map = "string, message", tag = "9")]
    pub attributes: HashMap<String, Struct>,
    /// Envoy tells and does not wait for answers.
    #[prost(bool, tag = "10")]
    pub observability_mode: bool,
    /// How Envoy is configured; on a stream's first message only.
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
    /// The request's trailers; they end its body.
    #[prost(message, tag = "6")]
    RequestTrailers(HttpTrailers),
    /// The response's trailers; they end its body.
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

/// Envoy's body modes for this filter.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ProtocolConfiguration {
    /// How request bodies are sent.
    #[prost(enumeration = "BodySendMode", tag = "1")]
    pub request_body_mode: i32,
    /// How response bodies are sent.
    #[prost(enumeration = "BodySendMode", tag = "2")]
    pub response_body_mode: i32,
}

/// `ProcessingMode.BodySendMode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum BodySendMode {
    /// Bodies are not sent.
    None = 0,
    /// Chunk by chunk, each waits for its answer.
    Streamed = 1,
    /// In one piece.
    Buffered = 2,
    /// In one piece up to a limit.
    BufferedPartial = 3,
    /// Chunks both ways, independent of each other.
    FullDuplexStreamed = 4,
    /// gRPC messages.
    Grpc = 5,
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

/// A header; Envoy fills `raw_value`, other proxies `value`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HeaderValue {
    /// Name.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// Value as text.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
    /// Value as bytes; comes before `value`.
    #[prost(bytes = "bytes", tag = "3")]
    pub raw_value: Bytes,
}

impl HeaderValue {
    /// The value, wherever the proxy put it.
    pub fn bytes(&self) -> &Bytes {
        if self.raw_value.is_empty() {
            &self.value
        } else {
            &self.raw_value
        }
    }
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

/// What we send.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ProcessingResponse {
    /// The answer.
    #[prost(oneof = "Answer", tags = "1, 2, 3, 4, 5, 6, 7")]
    pub answer: Option<Answer>,
    /// Metadata for Envoy's other filters, by namespace.
    #[prost(message, optional, tag = "8")]
    pub dynamic_metadata: Option<Struct>,
}

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
    /// Header changes.
    #[prost(message, optional, tag = "2")]
    pub header_mutation: Option<HeaderMutation>,
    /// Body chunk.
    #[prost(message, optional, tag = "3")]
    pub body_mutation: Option<BodyMutation>,
    /// Choose the route again (request direction only).
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
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub remove_headers: Vec<Bytes>,
}

/// A header to set.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HeaderValueOption {
    /// The header.
    #[prost(message, optional, tag = "1")]
    pub header: Option<HeaderValue>,
    /// What to do when it is there already.
    #[prost(enumeration = "AppendAction", tag = "3")]
    pub append_action: i32,
}

/// `HeaderValueOption.HeaderAppendAction`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum AppendAction {
    /// Add a value.
    AppendIfExistsOrAdd = 0,
    /// Leave what is there.
    AddIfAbsent = 1,
    /// Replace what is there, or add.
    OverwriteIfExistsOrAdd = 2,
    /// Replace what is there.
    OverwriteIfExists = 3,
}

/// A body change; full duplex mode allows chunks only.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BodyMutation {
    /// `streamed_response`.
    #[prost(message, optional, tag = "3")]
    pub streamed_response: Option<HttpBody>,
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

/// `type.v3.HttpStatus`; Envoy's enum has the numeric codes as values.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HttpStatus {
    /// The code.
    #[prost(int32, tag = "1")]
    pub code: i32,
}
