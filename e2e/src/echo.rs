//! An upstream that records every request to the byte and answers as told.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A request as the upstream saw it.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Path and query.
    pub path: String,
    /// Headers, names in lower case.
    pub headers: HeaderMap,
    /// The body, whole.
    pub body: Bytes,
}

/// What the upstream answers.
#[derive(Clone, Debug)]
pub enum Reply {
    /// The request's own body.
    Body,
    /// A fixed JSON document.
    Json(String),
    /// Server-sent events, one chunk each.
    Events(Vec<String>),
    /// Server-sent events, then an open response that never ends.
    EventsWithoutEnd(Vec<String>),
    /// Nothing, with the request left open.
    Silence,
}

/// A recording upstream; ends with its guard.
#[derive(Debug)]
pub struct Echo {
    /// Where it listens.
    pub address: SocketAddr,
    recorded: Arc<Mutex<VecDeque<Recorded>>>,
    task: JoinHandle<()>,
}

impl Echo {
    /// Starts on a free loopback port.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn start(reply: Reply) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        let address = listener.local_addr().expect("its address");
        let recorded: Arc<Mutex<VecDeque<Recorded>>> = Arc::default();
        let log = Arc::clone(&recorded);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (log, reply) = (Arc::clone(&log), reply.clone());
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let (log, reply) = (Arc::clone(&log), reply.clone());
                        async move { Ok::<_, Infallible>(answer(request, &log, reply).await) }
                    });
                    // A client that leaves is part of many tests.
                    let _ = auto::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self {
            address,
            recorded,
            task,
        }
    }

    /// Takes the oldest recorded request, if any. Metrics scrapes are not recorded.
    pub fn take(&self) -> Option<Recorded> {
        self.recorded
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    }

    /// Number of recorded requests that were not taken.
    pub fn count(&self) -> usize {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.task.abort();
    }
}

const METRICS: &str = "# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting 0\n\
     # TYPE vllm:num_requests_running gauge\nvllm:num_requests_running 0\n\
     # TYPE vllm:kv_cache_usage_perc gauge\nvllm:kv_cache_usage_perc 0\n";

fn frames(events: Vec<String>) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> + Send + Sync {
    futures_util::stream::iter(
        events
            .into_iter()
            .map(|event| Ok(Frame::data(Bytes::from(event)))),
    )
}

async fn answer(
    request: Request<Incoming>,
    log: &Mutex<VecDeque<Recorded>>,
    reply: Reply,
) -> Response<http_body_util::combinators::BoxBody<Bytes, Infallible>> {
    let (head, body) = request.into_parts();
    if head.uri.path() == "/metrics" {
        return Response::new(Full::from(METRICS).boxed());
    }
    let Ok(body) = body.collect().await.map(http_body_util::Collected::to_bytes) else {
        return Response::new(Full::default().boxed());
    };
    let path = head
        .uri
        .path_and_query()
        .map_or_else(String::new, ToString::to_string);
    log.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push_back(Recorded {
            path,
            headers: head.headers,
            body: body.clone(),
        });
    let (kind, body) = match reply {
        Reply::Body => ("application/octet-stream", Full::from(body).boxed()),
        Reply::Json(text) => ("application/json", Full::from(text).boxed()),
        Reply::Events(events) => (
            "text/event-stream",
            BodyExt::boxed(StreamBody::new(frames(events))),
        ),
        Reply::EventsWithoutEnd(events) => {
            let stream = frames(events).chain(futures_util::stream::pending());
            ("text/event-stream", BodyExt::boxed(StreamBody::new(stream)))
        }
        Reply::Silence => std::future::pending().await,
    };
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert("content-type", hyper::header::HeaderValue::from_static(kind));
    response
}
