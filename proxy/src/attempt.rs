//! One attempt: a request to one target, until the head and the first chunk of its answer are here.

use std::net::SocketAddr;

use http::header::{CONNECTION, HOST, HeaderValue, TE, UPGRADE};
use http::uri::{Authority, Scheme};
use http::{Request, StatusCode, Uri, Version, request};
use http_body_util::BodyExt;
use tokio::time::timeout;

use crate::body::{StreamedBodyError, TargetBody};
use crate::headers::{TakesTrailers, strip_hop_by_hop};
use crate::limits::Limits;
use crate::pool::Connection;
use crate::relay::Started;

/// Why there is no answer.
pub(crate) enum Failed {
    /// The head or the first chunk did not arrive in time. Not retried: the target may be at work.
    Deadline,
    /// The client's streamed body went over the limit.
    TooLarge,
    /// The connection failed or closed.
    Broken(String),
}

impl From<hyper::Error> for Failed {
    fn from(error: hyper::Error) -> Self {
        // hyper's own text is general ("connection error"); its source names the cause.
        match std::error::Error::source(&error) {
            Some(source) if matches!(source.downcast_ref(), Some(StreamedBodyError::TooLarge)) => {
                Self::TooLarge
            }
            Some(source) => Self::Broken(format!("{error}: {source}")),
            None => Self::Broken(error.to_string()),
        }
    }
}

/// Sends to one target and waits for the head of the answer and its first chunk.
pub(crate) async fn attempt(
    mut connection: Connection,
    head: &request::Parts,
    body: TargetBody,
    target: SocketAddr,
    limits: &Limits,
) -> Result<Started, Failed> {
    let is_http2 = connection.sender.is_http2();
    let mut request = Request::new(if is_http2 { body } else { body.without_trailers() });
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = head.uri.clone();
    *request.headers_mut() = head.headers.clone();
    if is_http2 {
        let scheme = if connection.is_secure {
            Scheme::HTTPS
        } else {
            Scheme::HTTP
        };
        as_http2(&mut request, head, scheme, target);
    }
    let answer = async {
        let mut response = connection.sender.send(request).await?;
        let upgrade = hyper::upgrade::on(&mut response);
        let (mut parts, mut body) = response.into_parts();
        strip_hop_by_hop(&mut parts.headers);
        let upgrade = (parts.status == StatusCode::SWITCHING_PROTOCOLS).then_some(upgrade);
        if upgrade.is_some() && !head.headers.contains_key(UPGRADE) {
            return Err(Failed::Broken("it left HTTP without being asked".to_owned()));
        }
        // Hold the head until the first chunk: an engine that dies between both can still be replaced.
        let first = body.frame().await.transpose()?;
        Ok((parts, first, body, upgrade))
    };
    let (parts, first, body, upgrade) = timeout(limits.response_head, answer)
        .await
        .map_err(|_| Failed::Deadline)??;
    Ok(Started {
        head: parts,
        first,
        body,
        upgrade,
        sender: connection.sender,
        target,
    })
}

/// The host moves into the target (RFC 9113 §8.3.1), and nothing of HTTP/1.1's connections is left.
fn as_http2(request: &mut Request<TargetBody>, head: &request::Parts, scheme: Scheme, target: SocketAddr) {
    let host = request.headers_mut().remove(HOST);
    let host = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let authority = host.or_else(|| target.to_string().parse().ok());
    let mut uri = head.uri.clone().into_parts();
    uri.scheme = Some(scheme);
    uri.authority = authority;
    if let Ok(uri) = Uri::from_parts(uri) {
        *request.uri_mut() = uri;
    }
    *request.version_mut() = Version::HTTP_2;
    request.headers_mut().remove(CONNECTION);
    request.headers_mut().remove(UPGRADE);
    if head.extensions.get::<TakesTrailers>().is_some() {
        // gRPC servers ask for it.
        let trailers = HeaderValue::from_static("trailers");
        request.headers_mut().insert(TE, trailers);
    }
}
