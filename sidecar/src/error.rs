//! Errors of the sidecar itself, in upstream's shape.

use http::StatusCode;
use llmd_proxy::LocalReply;
use serde::Serialize;

#[derive(Serialize)]
struct Body<'a> {
    object: &'static str,
    message: &'a str,
    r#type: &'static str,
    param: Option<&'a str>,
    code: u16,
}

/// `{"object":"error","message","type","param","code"}`.
pub(crate) fn reply(status: StatusCode, message: &str) -> LocalReply {
    let kind = match status {
        StatusCode::BAD_REQUEST => "BadRequestError",
        StatusCode::BAD_GATEWAY => "BadGateway",
        StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailable",
        _ => "InternalServerError",
    };
    let body = Body {
        object: "error",
        message,
        r#type: kind,
        param: None,
        code: status.as_u16(),
    };
    // A struct of text and numbers always becomes JSON.
    LocalReply::json(status, serde_json::to_vec(&body).unwrap_or_default())
}
