//! Requests that leave HTTP for a WebSocket: a tunnel between client and target once the target agrees.
//!
//! ```text
//!  HTTP/1.1 GET, Upgrade ──▶ begin/plan/replan as any request ──▶ target: 101 ──▶ bytes both ways until
//!  HTTP/2 CONNECT (RFC 8441) ──▶ turned into that ──┘              ──▶ 200          either side ends
//! ```
//!
//! An answer other than 101 is relayed as any other. A tunnel holds its request's place and its endpoint's load;
//! it ends with a side that closes, after a pause of both, with the drain, or with the request's own deadline.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{Method, StatusCode, Version, request, response};
use hyper::ext::Protocol;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::access_log::{Ended, Entry};
use crate::activity::OpenRequest;
use crate::exchange::within;
use crate::limits::Limits;
use crate::route::{Flight, Outcome, Tracked};

/// The protocol that is let through. Others (h2c above all) would let clients past what is decided per request.
const WEBSOCKET: &str = "websocket";
/// Bytes that wait in each direction, besides the kernel's.
const BUFFER: usize = 16 * 1024;

/// How a client asked for its WebSocket, and is told that it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// HTTP/1.1: `Upgrade`, 101.
    Upgrade,
    /// HTTP/2: extended `CONNECT`, 200. Its connection goes on with other streams.
    Connect,
}

impl Asked {
    /// How `head` asks for a way out of HTTP that is let through, if it does. A `CONNECT` becomes the `GET`
    /// that targets know.
    pub(crate) fn by(head: &mut request::Parts) -> Option<Self> {
        if is_connect(head) {
            head.method = Method::GET;
            head.extensions.remove::<Protocol>();
            // Over HTTP/2 clients send no key (RFC 8441 §5), and HTTP/1.1 servers want one. Their answer to it
            // proves no more than their 101 does, so it is not compared.
            let key: [u8; 16] = std::array::from_fn(|_| fastrand::u8(..));
            if let Ok(key) = HeaderValue::from_str(&STANDARD.encode(key)) {
                head.headers.insert(SEC_WEBSOCKET_KEY, key);
            }
            return Some(Self::Connect);
        }
        is_upgrade(head).then_some(Self::Upgrade)
    }

    /// Turns a target's 101 into what the client understands; returns its status.
    pub(crate) fn agree(self, head: &mut response::Parts) -> StatusCode {
        match self {
            Self::Upgrade => mark(&mut head.headers),
            Self::Connect => {
                head.status = StatusCode::OK;
                head.headers.remove(SEC_WEBSOCKET_ACCEPT);
            }
        }
        head.status
    }
}

fn is_connect(head: &request::Parts) -> bool {
    let protocol = head.extensions.get::<Protocol>();
    head.method == Method::CONNECT && protocol.is_some_and(|protocol| protocol.as_str() == WEBSOCKET)
}

fn is_upgrade(head: &request::Parts) -> bool {
    head.version == Version::HTTP_11
        && head.method == Method::GET
        && has_token(&head.headers, &CONNECTION, "upgrade")
        && head
            .headers
            .get(UPGRADE)
            .is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(WEBSOCKET.as_bytes()))
}

fn has_token(headers: &HeaderMap, name: &http::HeaderName, token: &str) -> bool {
    let values = headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .any(|value| value.trim().eq_ignore_ascii_case(token))
}

/// Says on this hop, too, that HTTP is left.
pub(crate) fn mark(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(WEBSOCKET));
}

/// Both sides of an agreed tunnel, and what ends with it.
pub(crate) struct Tunnel<F: Flight> {
    pub(crate) client: OnUpgrade,
    pub(crate) target: OnUpgrade,
    pub(crate) tracked: Tracked<F>,
    pub(crate) entry: Option<Box<Entry>>,
    pub(crate) until: Option<Instant>,
    pub(crate) permit: OwnedSemaphorePermit,
    /// The tunnel is one of several streams of an HTTP/2 connection, which is not idle meanwhile.
    pub(crate) open: OpenRequest,
}

impl<F: Flight> Tunnel<F> {
    /// Passes bytes on until the end.
    pub(crate) async fn run(mut self, limits: Limits, cut: CancellationToken) {
        let down = AtomicU64::new(0);
        let carried = async {
            let agreed = async { tokio::try_join!(self.client, self.target) };
            match timeout(limits.request_head, agreed).await {
                Ok(Ok((client, target))) => carry(client, target, limits.response_idle, &down).await,
                // The client left before it had the 101.
                Ok(Err(_)) | Err(_) => Stop::Client,
            }
        };
        let stop = tokio::select! {
            // First: the same cut closes the client's connection, which would else look like a client that left.
            biased;
            () = cut.cancelled() => Stop::Deadline,
            stop = within(self.until, carried) => stop.unwrap_or(Stop::Deadline),
        };
        let (outcome, ended) = match stop {
            Stop::Closed => (Outcome::Complete, Ended::Complete),
            Stop::Client => (Outcome::ClientGone, Ended::ClientGone),
            Stop::Target => (Outcome::TargetFailed, Ended::Broken),
            // Nobody failed: the endpoint did what it was asked for.
            Stop::Deadline => (Outcome::Complete, Ended::Broken),
        };
        let mut nothing = Vec::new();
        self.tracked
            .flight()
            .on_response_chunk(Bytes::new(), true, &mut nothing);
        self.tracked.end(outcome);
        if let Some(entry) = &mut self.entry {
            entry.sent(down.into_inner() as usize);
            entry.ended(ended);
        }
        drop((self.permit, self.open));
    }
}

/// Why a tunnel ended.
enum Stop {
    /// Both sides closed.
    Closed,
    /// The client's side failed.
    Client,
    /// The target's side failed.
    Target,
    /// A deadline, or the end of the drain.
    Deadline,
}

async fn carry(client: Upgraded, target: Upgraded, idle: Duration, down: &AtomicU64) -> Stop {
    let (client_reader, client_writer) = split(TokioIo::new(client));
    let (target_reader, target_writer) = split(TokioIo::new(target));
    let up = AtomicU64::new(0);
    let both = async {
        tokio::try_join!(
            pump(client_reader, target_writer, &up, (Stop::Client, Stop::Target)),
            pump(target_reader, client_writer, down, (Stop::Target, Stop::Client)),
        )
    };
    tokio::select! {
        carried = both => carried.err().unwrap_or(Stop::Closed),
        () = pause(idle, || up.load(Relaxed) + down.load(Relaxed)) => Stop::Deadline,
    }
}

/// Passes bytes on until `from` ends, then ends `to`. An error is told by the side that made it.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    passed: &AtomicU64,
    (reading, writing): (Stop, Stop),
) -> Result<(), Stop> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let Ok(read) = from.read(&mut buffer).await else {
            return Err(reading);
        };
        let pass = async {
            if read == 0 {
                return to.shutdown().await;
            }
            to.write_all(&buffer[..read]).await?;
            to.flush().await?;
            io::Result::Ok(())
        };
        if pass.await.is_err() {
            return Err(writing);
        }
        if read == 0 {
            return Ok(());
        }
        passed.fetch_add(read as u64, Relaxed);
    }
}

/// Returns after a time of `idle` in which nothing passed.
async fn pause(idle: Duration, passed: impl Fn() -> u64) {
    let mut before = passed();
    loop {
        sleep(idle).await;
        let now = passed();
        if now == before {
            return;
        }
        before = now;
    }
}
