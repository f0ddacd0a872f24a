//! One request: read it, ask where it goes, send it, and try again while nothing reached the client.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue};
use http::{HeaderMap, Request, Response, StatusCode, Version, request};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access_log::{AccessLog, Entry};
use crate::activity::OpenRequest;
use crate::answer::Answer;
use crate::attempt::{Failed, attempt};
use crate::body::{HeldBody, TargetBody};
use crate::connection::Client;
use crate::headers::{check_request, prepare_request};
use crate::held::{HeldBytes, Lease};
use crate::limits::Limits;
use crate::pool::Pool;
use crate::relay::{Relay, Started};
use crate::reply::LocalReply;
use crate::review::{Reviewed, review};
use crate::route::{BodyMode, Flight, Outcome, Plan, Resumption, Route, Tracked};
use crate::trailers;
use crate::upgrade::{self, Asked, Tunnel};

/// What all requests of a server share.
pub(crate) struct Shared<R: Route> {
    pub(crate) route: R,
    pub(crate) pool: Pool,
    pub(crate) limits: Limits,
    pub(crate) permits: Arc<tokio::sync::Semaphore>,
    /// Answers close their connections.
    pub(crate) closing: CancellationToken,
    /// Request bodies in memory.
    pub(crate) held: HeldBytes,
    /// Of clients' connections.
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
    /// Connections and tunnels.
    pub(crate) running: TaskTracker,
    /// Ends both at once.
    pub(crate) cut: CancellationToken,
    /// Who is told about each request.
    pub(crate) access_log: Option<AccessLog>,
    /// Whether `Forwarded` and `X-Forwarded-*` of clients are passed on.
    pub(crate) trusts_forwarded: bool,
}

/// Serves one request from its head to the first chunk of the answer.
pub(crate) async fn serve<R: Route>(
    shared: Arc<Shared<R>>,
    request: Request<Incoming>,
    client: Client,
    open: OpenRequest,
) -> Response<Answer<R>> {
    let closing = shared.closing.clone();
    // HTTP/2 has no such header; its connections end with GOAWAY.
    let has_header = request.version() <= Version::HTTP_11;
    let entry = shared.access_log.as_ref();
    let mut entry = entry.map(|log| Box::new(Entry::new(log, &request, client)));
    let mut response = match forward(shared, request, client, &open, &mut entry).await {
        Ok(response) => response,
        Err(reply) => reply.into_response(),
    };
    if has_header && closing.is_cancelled() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    if let Some(entry) = &mut entry {
        entry.answered(response.status());
    }
    response.map(|body| Answer::new(body, open, entry))
}

async fn forward<R: Route>(
    shared: Arc<Shared<R>>,
    mut request: Request<Incoming>,
    client: Client,
    open: &OpenRequest,
    entry: &mut Option<Box<Entry>>,
) -> Result<Response<Relay<R>>, LocalReply> {
    let Ok(permit) = Arc::clone(&shared.permits).try_acquire_owned() else {
        let message = format!(
            "{} requests are in flight already; try again",
            shared.limits.concurrent_requests
        );
        return Err(LocalReply::error(StatusCode::SERVICE_UNAVAILABLE, &message).retry_after(1));
    };
    let leaving = hyper::upgrade::on(&mut request);
    let (mut head, body) = request.into_parts();
    let asked = Asked::by(&mut head);
    check_request(&head)?;
    let leaving = asked.map(|asked| (asked, leaving));
    let until = shared.limits.total.map(|total| Instant::now() + total);
    let mut tracked = Tracked::new(shared.route.begin(&head, client.peer)?);
    let starting = start(&shared, &mut tracked, &mut head, body, client, leaving.is_some());
    let started = within(until, starting).await;
    let mut started = match started.unwrap_or_else(|| Err(total_deadline(&shared.limits))) {
        Ok(started) => started,
        Err(reply) => {
            tracked.end(Outcome::Rejected);
            return Err(reply);
        }
    };
    if let Some(entry) = entry {
        entry.forwarded(started.target, &head.headers);
    }
    let agreed = leaving.zip(started.upgrade.take());
    if agreed.is_none() && asked == Some(Asked::Connect) && started.head.status.is_success() {
        // For the client any success would be the WebSocket.
        tracked.end(Outcome::Rejected);
        let message = format!("{} answered, but did not agree to a WebSocket", started.target);
        return Err(LocalReply::error(StatusCode::BAD_GATEWAY, &message));
    }
    let Some(((asked, client), target)) = agreed else {
        return Ok(Relay::respond(started, head, tracked, shared, permit, until));
    };
    tracked.flight().on_response_head(&mut started.head);
    let status = asked.agree(&mut started.head);
    let mut entry = entry.take();
    if let Some(entry) = &mut entry {
        entry.answered(status);
    }
    let tunnel = Tunnel {
        client,
        target,
        tracked,
        entry,
        until,
        permit,
        open: open.clone(),
    };
    let running = tunnel.run(shared.limits.clone(), shared.cut.clone());
    shared.running.spawn(running);
    Ok(Response::from_parts(started.head, Relay::from(Bytes::new())))
}

/// Waits no longer than `until`; `None` when that was not enough.
pub(crate) async fn within<T>(until: Option<Instant>, work: impl Future<Output = T>) -> Option<T> {
    match until {
        Some(until) => timeout_at(until, work).await.ok(),
        None => Some(work.await),
    }
}

/// Up to here a body that nobody looks at is held all the same, in bytes: its request can be sent again, so that it
/// takes a connection that was kept open. A streamed one takes one that was in use a moment ago, or a new one.
const SMALL: u64 = 64 << 10;

/// Most plans that replace a request.
const MAX_PLANS: u32 = 16;

async fn start<R: Route>(
    shared: &Shared<R>,
    tracked: &mut Tracked<R::Flight>,
    head: &mut request::Parts,
    body: Incoming,
    client: Client,
    leaves_http: bool,
) -> Result<Started, LocalReply> {
    if body.size_hint().lower() > shared.limits.request_body_bytes as u64 {
        return Err(too_large(&shared.limits));
    }
    // A request that leaves HTTP has no body to stream.
    let is_streamed = tracked.flight().body_mode() == BodyMode::Stream && !leaves_http;
    if is_streamed && body.size_hint().exact().is_none_or(|size| size > SMALL) {
        prepare_request(head, client, shared.trusts_forwarded);
        let Plan { target, body: _ } = tracked.flight().plan(head, Vec::new()).await?;
        return send_streamed(shared, tracked, head, target, body).await;
    }
    // Held until an answer has begun: only then is nobody else asked.
    let mut lease = shared.held.lease();
    let reader = (!is_streamed).then(|| tracked.flight());
    let (held, trailers) = read_body(body, &shared.limits, reader, &mut lease).await?;
    prepare_request(head, client, shared.trusts_forwarded);
    let (target, body) = if is_streamed {
        let Plan { target, body: _ } = tracked.flight().plan(head, Vec::new()).await?;
        (target, held)
    } else {
        let Plan { target, body } = tracked.flight().plan(head, held).await?;
        (target, body)
    };
    let body = HeldBody {
        pieces: body.into(),
        trailers,
    };
    if leaves_http {
        upgrade::mark(&mut head.headers);
    }
    send_held(shared, tracked, head, target, body).await
}

/// Reads a body to its end, showing each chunk to the flight that wants it, and what of its trailers goes on.
async fn read_body<F: Flight>(
    mut body: Incoming,
    limits: &Limits,
    mut flight: Option<&mut F>,
    lease: &mut Lease,
) -> Result<(Vec<Bytes>, Option<HeaderMap>), LocalReply> {
    let mut held = Vec::new();
    let mut size = 0_usize;
    let end = Instant::now() + limits.request_body;
    loop {
        let next = end.min(Instant::now() + limits.request_idle);
        let frame = match timeout_at(next, body.frame()).await {
            Err(_) if next == end => {
                let message = format!("the request body did not end within {:?}", limits.request_body);
                return Err(LocalReply::error(StatusCode::REQUEST_TIMEOUT, &message));
            }
            Err(_) => {
                let message = format!(
                    "no byte of the request body arrived for {:?}",
                    limits.request_idle
                );
                return Err(LocalReply::error(StatusCode::REQUEST_TIMEOUT, &message));
            }
            Ok(None) => return Ok((held, None)),
            Ok(Some(Err(error))) => {
                let message = format!("the request body broke off: {error}");
                return Err(LocalReply::error(StatusCode::BAD_REQUEST, &message));
            }
            Ok(Some(Ok(frame))) => frame,
        };
        let chunk = match frame.into_data() {
            Ok(chunk) => chunk,
            Err(frame) => return Ok((held, frame.into_trailers().ok().and_then(trailers::prepare))),
        };
        size += chunk.len();
        if size > limits.request_body_bytes {
            return Err(too_large(limits));
        }
        if !lease.grow(chunk.len(), limits.held_body_bytes) {
            let message = format!(
                "request bodies use all of the {} bytes that they may; try again",
                limits.held_body_bytes
            );
            return Err(LocalReply::error(StatusCode::TOO_MANY_REQUESTS, &message).retry_after(1));
        }
        if let Some(flight) = &mut flight {
            flight.on_request_chunk(&chunk)?;
        }
        if !chunk.is_empty() {
            held.push(chunk);
        }
    }
}

fn too_large(limits: &Limits) -> LocalReply {
    let message = format!(
        "the request body is larger than the limit of {} bytes",
        limits.request_body_bytes
    );
    LocalReply::error(StatusCode::PAYLOAD_TOO_LARGE, &message)
}

/// Sends a held request; moves on to other targets while no byte of an answer has arrived, and to other plans of the
/// flight until it passes an answer.
async fn send_held<R: Route>(
    shared: &Shared<R>,
    tracked: &mut Tracked<R::Flight>,
    head: &mut request::Parts,
    first: SocketAddr,
    mut body: HeldBody,
) -> Result<Started, LocalReply> {
    let mut target = first;
    let mut failure = String::new();
    let (mut attempts, mut plans) = (0, 0);
    while attempts < shared.limits.attempts && plans < MAX_PLANS {
        let sent = tokio::select! {
            biased;
            sent = send_to(shared, head, target, &body) => sent,
            plan = tracked.flight().meanwhile() => {
                (target, body) = other(plan?, body);
                plans += 1;
                continue;
            }
        };
        match sent {
            Ok(started) => match review(tracked.flight(), started, shared.limits.response_idle).await? {
                Reviewed::Passed(started) => return Ok(*started),
                Reviewed::Instead(plan) => {
                    (target, body) = other(plan, body);
                    plans += 1;
                    continue;
                }
            },
            Err(Failed::Deadline) => return Err(head_deadline(target, shared.limits.response_head)),
            Err(Failed::TooLarge) => return Err(too_large(&shared.limits)),
            Err(Failed::Broken(cause)) => {
                tracing::debug!(%target, %cause, "target failed before its answer");
                failure = cause;
            }
        }
        attempts += 1;
        match tracked.flight().replan(target, head).await {
            Some(next) => target = next,
            None => break,
        }
    }
    Err(given_up(tracked, target, &failure))
}

/// Another request in the place of one with `body`, whose trailers it keeps.
fn other(plan: Plan, body: HeldBody) -> (SocketAddr, HeldBody) {
    let pieces = plan.body.into();
    (plan.target, HeldBody { pieces, ..body })
}

/// Sends a held request to one target. When a connection that was kept open turns out to be closed,
/// that says nothing about the target: it gets a second chance on a new connection.
async fn send_to<R: Route>(
    shared: &Shared<R>,
    head: &request::Parts,
    target: SocketAddr,
    body: &HeldBody,
) -> Result<Started, Failed> {
    let mut connection = shared.pool.get(target).await;
    loop {
        let opened = connection.map_err(|error| Failed::Broken(error.to_string()))?;
        let reused = opened.reused;
        let body = TargetBody::Held(body.clone());
        match attempt(opened, head, body, target, &shared.limits).await {
            Err(Failed::Broken(_)) if reused => connection = shared.pool.fresh(target).await,
            outcome => return outcome,
        }
    }
}

/// How a broken stream goes on.
pub(crate) enum Resumed {
    /// A target sends the rest.
    Started(Box<Started>),
    /// These bytes complete it.
    Complete(Bytes),
    /// Nobody can continue it.
    Lost,
}

/// Finds somebody who continues the stream that `failed` broke off.
pub(crate) async fn resume<R: Route>(
    shared: &Shared<R>,
    tracked: &mut Tracked<R::Flight>,
    head: &mut request::Parts,
    mut failed: SocketAddr,
) -> Resumed {
    for _ in 1..shared.limits.attempts {
        let Plan { target, body } = match tracked.flight().resume(failed, head).await {
            Some(Resumption::Send(plan)) => plan,
            Some(Resumption::Complete(rest)) => return Resumed::Complete(rest),
            None => break,
        };
        let body = HeldBody {
            pieces: body.into(),
            trailers: None,
        };
        match send_to(shared, head, target, &body).await {
            Ok(started) if started.head.status == StatusCode::OK && started.is_event_stream() => {
                return Resumed::Started(Box::new(started));
            }
            Ok(started) if started.head.status.is_client_error() => {
                // Another target would refuse it as well.
                tracing::warn!(%target, status = %started.head.status, "the rest of a stream was refused");
                break;
            }
            Ok(started) => {
                tracing::debug!(%target, status = %started.head.status, "target cannot continue a stream");
            }
            Err(_) => tracing::debug!(%target, "target failed before it continued a stream"),
        }
        failed = target;
    }
    Resumed::Lost
}

/// Sends a request whose body streams through: only the connection itself may be retried.
async fn send_streamed<R: Route>(
    shared: &Shared<R>,
    tracked: &mut Tracked<R::Flight>,
    head: &mut request::Parts,
    first: SocketAddr,
    body: Incoming,
) -> Result<Started, LocalReply> {
    let mut target = first;
    for number in 1.. {
        match shared.pool.get_lively(target).await {
            Ok(connection) => {
                let body = TargetBody::Streamed {
                    body,
                    left: shared.limits.request_body_bytes,
                    trails: true,
                };
                return match attempt(connection, head, body, target, &shared.limits).await {
                    Ok(started) => Ok(started),
                    Err(Failed::Deadline) => Err(head_deadline(target, shared.limits.response_head)),
                    Err(Failed::TooLarge) => Err(too_large(&shared.limits)),
                    Err(Failed::Broken(cause)) => Err(given_up(tracked, target, &cause)),
                };
            }
            Err(error) => {
                let next = tracked.flight().replan(target, head).await;
                match next {
                    Some(next) if number < shared.limits.attempts => target = next,
                    _ => return Err(given_up(tracked, target, &error.to_string())),
                }
            }
        }
    }
    Err(bad_gateway(target, "no attempt is allowed"))
}

/// No target is left.
fn given_up<F: Flight>(tracked: &mut Tracked<F>, target: SocketAddr, cause: &str) -> LocalReply {
    let reply = tracked.flight().no_target(cause);
    tracked.end(Outcome::TargetFailed);
    reply.unwrap_or_else(|| bad_gateway(target, cause))
}

fn bad_gateway(target: SocketAddr, cause: &str) -> LocalReply {
    LocalReply::error(
        StatusCode::BAD_GATEWAY,
        &format!("no target answered; the last one, {target}, failed: {cause}"),
    )
}

fn total_deadline(limits: &Limits) -> LocalReply {
    let message = format!(
        "the request took longer than {:?} in all",
        limits.total.unwrap_or_default()
    );
    LocalReply::error(StatusCode::GATEWAY_TIMEOUT, &message)
}

fn head_deadline(target: SocketAddr, deadline: Duration) -> LocalReply {
    LocalReply::error(
        StatusCode::GATEWAY_TIMEOUT,
        &format!("{target} did not begin to answer within {deadline:?}"),
    )
}
