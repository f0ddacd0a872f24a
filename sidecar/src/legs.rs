//! What runs before the decode leg, and beside it.

pub(crate) mod beside;
pub(crate) mod encode;
pub(crate) mod prefill;
pub(crate) mod serial;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderName, HeaderValue, StatusCode, request, response};
use llmd_openai::header;
use llmd_proxy::LocalReply;

use crate::api::Api;
use crate::error;
use encode::EcConnector;
use prefill::LegError;

/// The rank of an engine that a request is held to.
const RANK: HeaderName = HeaderName::from_static("x-data-parallel-rank");

/// The engines of a request before its decode engine.
#[derive(Clone, Debug)]
pub(crate) struct Legs {
    pub(crate) api: Api,
    /// Prefill engines, best first.
    pub(crate) prefillers: Vec<String>,
    /// An engine that has blocks of the prompt.
    pub(crate) source: Option<String>,
    /// Encode engines, where the request has some.
    pub(crate) encoders: Option<(EcConnector, Vec<String>)>,
}

impl Legs {
    pub(crate) fn is_empty(&self) -> bool {
        self.prefillers.is_empty() && self.encoders.is_none() && self.source.is_none()
    }
}

/// A body that cannot be made into legs.
pub(crate) fn bad_body(error: &impl std::fmt::Display) -> LocalReply {
    let message = format!("the request body cannot be split into a prefill and a decode: {error}");
    error::reply(StatusCode::BAD_REQUEST, &message)
}

/// Nobody computed a prompt, and the client is told.
pub(crate) fn told(error: LegError) -> LocalReply {
    match error {
        LegError::Status(response) => pass_on(*response),
        other => error::reply(StatusCode::BAD_GATEWAY, &other.to_string()),
    }
}

/// A prefill engine's answer as the client's.
pub(crate) fn pass_on(response: response::Response<Bytes>) -> LocalReply {
    let (head, body) = response.into_parts();
    let mut reply = LocalReply {
        status: head.status,
        headers: Vec::new(),
        body,
    };
    for (name, value) in &head.headers {
        if name != CONTENT_LENGTH {
            reply = reply.with_header(name.clone(), value.clone());
        }
    }
    reply
}

/// Holds a leg to a rank.
pub(crate) fn hold_to(head: &mut request::Parts, rank: Option<&str>) {
    if let Some(value) = rank.and_then(|rank| HeaderValue::from_str(rank).ok()) {
        head.headers.insert(RANK, value);
    }
}

/// The id of a request, which both legs have.
pub(crate) fn request_id(head: &request::Parts) -> &str {
    let id = head.headers.get(header::REQUEST_ID);
    id.and_then(|id| id.to_str().ok()).unwrap_or_default()
}
