//! Chunked decode: the answer to a chat is asked for in parts of so many tokens, each continuing the one before.
//!
//! ```text
//!  Flight ─▶ Chunker (on loopback) ─1─▶ engine: at most N tokens
//!                                  ─2─▶ engine: the same, with the text so far as the beginning of its answer
//!            one answer, or events ◀── until a part ends by itself or the client's cap is reached
//! ```
//!
//! Long answers leave the engine's batch between their parts, so that others get in. Only requests whose answer text
//! alone can be continued are cut: no tools, no structured output, one choice, no log probabilities. Source:
//! llm-d-router `pkg/sidecar/proxy/decode.go`; other than there, parts that are not the last have no finish reason in
//! the stream, the text so far is one message, and usage comes when it is asked for.

mod parts;

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use llmd_openai::check_continuable;
use llmd_proxy::Caller;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use parts::{Failure, Part, Parts};

/// Most bytes of a request; the forwarder before it allows no more.
const LONGEST: usize = 1 << 30;

/// Asks one engine.
pub(crate) struct Chunker {
    pub(crate) caller: Caller,
    pub(crate) engine: SocketAddr,
    /// Most tokens of a part.
    pub(crate) tokens: u64,
}

/// A chunker that serves, as long as this lives.
pub(crate) struct Serving {
    pub(crate) address: SocketAddr,
    _task: AbortOnDropHandle<()>,
}

/// What of a request decides about its parts.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Wanted {
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    min_tokens: Option<u64>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct StreamOptions {
    include_usage: Option<bool>,
}

impl Wanted {
    /// The client's cap, the newer name first.
    fn cap(&self) -> Option<u64> {
        let caps = [self.max_completion_tokens, self.max_tokens];
        caps.into_iter().flatten().find(|cap| *cap > 0)
    }
}

/// Whether the answer to this chat is asked for in parts of so many tokens.
pub(crate) fn applies(body: &[Bytes], tokens: u64) -> bool {
    let whole = body.concat();
    let Ok(wanted) = serde_json::from_slice::<Wanted>(&whole) else {
        return false;
    };
    wanted.cap().is_none_or(|cap| cap > tokens) && check_continuable(&whole).is_ok()
}

/// Begins to serve on a port of its own.
///
/// # Errors
/// No port is free.
pub(crate) async fn serve(chunker: Chunker) -> io::Result<Serving> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let chunker = Arc::new(chunker);
    let router = Router::new().fallback(move |request| answer(Arc::clone(&chunker), request));
    let task = tokio::spawn(async move {
        // It ends with its task.
        let _ = axum::serve(listener, router).await;
    });
    Ok(Serving {
        address,
        _task: AbortOnDropHandle::new(task),
    })
}

/// What of a streamed answer comes next.
enum Stage {
    Part(Option<Part>),
    Next,
    Ended,
}

async fn answer(chunker: Arc<Chunker>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, LONGEST).await else {
        return Failure::new(StatusCode::BAD_REQUEST, "the request body broke off").response();
    };
    let wanted: Wanted = serde_json::from_slice(&body).unwrap_or_default();
    let streams = wanted.stream == Some(true);
    let tells_usage = wanted
        .stream_options
        .as_ref()
        .is_some_and(|options| options.include_usage == Some(true));
    let mut parts = Parts::new(chunker, head, body, &wanted);
    // The first one decides about the status.
    let first = match parts.next().await {
        Ok(first) => first,
        Err(failure) => return failure.response(),
    };
    if !streams {
        return match parts.rest(first).await {
            Ok(whole) => json(StatusCode::OK, whole),
            Err(failure) => failure.response(),
        };
    }
    let events = stream::unfold(
        (parts, Stage::Part(first)),
        move |(mut parts, stage)| async move {
            let part = match stage {
                Stage::Part(part) => Ok(part),
                Stage::Next => parts.next().await,
                Stage::Ended => return None,
            };
            Some(match part {
                Ok(Some(part)) => (parts.event(&part), (parts, Stage::Next)),
                Ok(None) => (parts.tail(tells_usage), (parts, Stage::Ended)),
                // The status is told already: an error event, and no end that looks like one.
                Err(failure) => (failure.event(), (parts, Stage::Ended)),
            })
        },
    );
    let events = events.map(|event| Ok::<_, Infallible>(Bytes::from(event)));
    let mut response = Response::new(Body::from_stream(events));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

fn json(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}
