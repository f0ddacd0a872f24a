//! Why a request was not scheduled, in upstream's words.

use std::fmt;

/// Typed error codes and the HTTP status they become (llm-d-router pkg/epp/util/error).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// 400: the request itself is wrong.
    BadRequest,
    /// 401.
    Unauthorized,
    /// 403.
    Forbidden,
    /// 404.
    NotFound,
    /// 412: a condition of the request does not hold.
    PreconditionFailed,
    /// 413: the body is over a stated limit.
    PayloadTooLarge,
    /// 415: the body is in an encoding that cannot be read.
    UnsupportedMediaType,
    /// 429: capacity exists but is contended.
    ResourceExhausted,
    /// 500: a defect on our side.
    Internal,
    /// 503: no serving capacity now.
    ServiceUnavailable,
    /// The engine answered with an error; only a metric label.
    ModelServerError,
    /// Not classified; the stream fails instead of an immediate response.
    Unknown,
}

impl ErrorCode {
    /// The name in bodies and in the metric label `error_code`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "BadRequest",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "NotFound",
            Self::PreconditionFailed => "PreconditionFailed",
            Self::PayloadTooLarge => "PayloadTooLarge",
            Self::UnsupportedMediaType => "UnsupportedMediaType",
            Self::ResourceExhausted => "ResourceExhausted",
            Self::Internal => "Internal",
            Self::ServiceUnavailable => "ServiceUnavailable",
            Self::ModelServerError => "ModelServerError",
            Self::Unknown => "Unknown",
        }
    }

    /// HTTP status of the immediate response.
    pub fn http_status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::PreconditionFailed => 412,
            Self::PayloadTooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::ResourceExhausted => 429,
            Self::Internal | Self::ModelServerError | Self::Unknown => 500,
            Self::ServiceUnavailable => 503,
        }
    }
}

/// Values of `x-llm-d-request-dropped-reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RejectReason {
    /// Capacity is contended.
    Saturated,
    /// No endpoint can serve the request.
    NoEndpoints,
    /// The picker ends while the request waits.
    ShuttingDown,
}

impl RejectReason {
    /// The header value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Saturated => "rejected-saturated",
            Self::NoEndpoints => "rejected-no-endpoints",
            Self::ShuttingDown => "rejected-shutting-down",
        }
    }
}

/// A request that is answered by the EPP itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Typed code; decides the status.
    pub code: ErrorCode,
    /// What went wrong and, where there is one, the fix.
    pub message: String,
    /// Value of the drop-reason header, where upstream sets one.
    pub reason: Option<RejectReason>,
}

impl Rejection {
    /// A rejection without a drop reason.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            reason: None,
        }
    }

    /// Adds the drop reason.
    #[must_use]
    pub fn because(mut self, reason: RejectReason) -> Self {
        self.reason = Some(reason);
        self
    }

    /// The body of the immediate response: `inference error: CODE - MSG`.
    pub fn body(&self) -> String {
        format!("inference error: {} - {}", self.code.as_str(), self.message)
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.message)
    }
}

impl std::error::Error for Rejection {}
