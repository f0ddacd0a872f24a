//! What a client connection is doing, so that each of its pauses has a deadline.
//!
//! ```text
//!  no byte ──▶ Idle ──bytes──▶ Head ──request──▶ Busy ──last answer over──▶ Idle
//! ```
//!
//! hyper's own deadline for heads also ends connections that are merely kept alive, and it has none for
//! HTTP/2 nor for clients that take no byte of an answer.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::limits::Limits;
use crate::transport::Transport;

/// First bytes of an HTTP/2 connection (RFC 9113 §3.4); no HTTP/1 method has them.
const PREFACE: &[u8] = b"PRI ";

/// Shared by a connection's byte stream, its requests and the task that looks at its deadlines.
pub(crate) struct Activity {
    start: Instant,
    /// Requests whose answer is not over.
    open: AtomicUsize,
    has_served: AtomicBool,
    /// Bytes arrived since the last answer was over.
    in_head: AtomicBool,
    is_http2: AtomicBool,
    /// Milliseconds from `start` to the last change between `Idle` and `Head`.
    since: AtomicU64,
}

/// Which deadline a connection has missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overdue {
    /// A request head.
    Head,
    /// The next request.
    Idle,
}

impl Activity {
    pub(crate) fn new(is_http2: bool) -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            open: AtomicUsize::new(0),
            has_served: AtomicBool::new(false),
            in_head: AtomicBool::new(false),
            is_http2: AtomicBool::new(is_http2),
            since: AtomicU64::new(0),
        })
    }

    /// Counts a request until the guard goes.
    pub(crate) fn request(self: &Arc<Self>) -> OpenRequest {
        self.open.fetch_add(1, Relaxed);
        self.has_served.store(true, Relaxed);
        OpenRequest(Arc::clone(self))
    }

    /// Whether a GOAWAY can be sent: HTTP/2, and the client has had its first request taken.
    pub(crate) fn can_go_away(&self) -> bool {
        self.is_http2.load(Relaxed) && self.has_served.load(Relaxed)
    }

    /// The deadline that is missed now, if any.
    pub(crate) fn overdue(&self, limits: &Limits) -> Option<Overdue> {
        if self.open.load(Relaxed) > 0 {
            return None;
        }
        let pause = self
            .start
            .elapsed()
            .saturating_sub(Duration::from_millis(self.since.load(Relaxed)));
        // Frames of HTTP/2 need not belong to a request, so only its first one is waited for as a head.
        let in_head = self.in_head.load(Relaxed) && !self.can_go_away();
        match in_head {
            true if pause >= limits.request_head => Some(Overdue::Head),
            false if pause >= limits.client_idle => Some(Overdue::Idle),
            _ => None,
        }
    }

    fn changed(&self, in_head: bool) {
        self.since.store(self.start.elapsed().as_millis() as u64, Relaxed);
        self.in_head.store(in_head, Relaxed);
    }

    fn on_bytes(&self, bytes: &[u8]) {
        if self.open.load(Relaxed) > 0 || self.in_head.load(Relaxed) {
            return;
        }
        if !self.has_served.load(Relaxed) && bytes.starts_with(PREFACE) {
            self.is_http2.store(true, Relaxed);
        }
        self.changed(true);
    }
}

/// A request in flight on a connection.
pub(crate) struct OpenRequest(Arc<Activity>);

impl Clone for OpenRequest {
    fn clone(&self) -> Self {
        self.0.request()
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Relaxed) == 1 {
            self.0.changed(false);
        }
    }
}

/// A client's byte stream that notes arriving bytes and gives up on a client that takes none.
pub(crate) struct Watched {
    stream: Transport,
    activity: Arc<Activity>,
    stall: Duration,
    /// Runs while the client's side is full.
    full: Option<Pin<Box<Sleep>>>,
}

impl Watched {
    pub(crate) fn new(stream: Transport, activity: Arc<Activity>, stall: Duration) -> Self {
        Self {
            stream,
            activity,
            stall,
            full: None,
        }
    }

    fn progress<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.full = None;
            return written;
        }
        let stall = self.stall;
        let full = self
            .full
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(stall)));
        ready!(full.as_mut().poll(cx));
        let message = format!("the client took no byte for {stall:?}");
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, message)))
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if let Some(new) = buffer.filled().get(before..).filter(|new| !new.is_empty()) {
            self.activity.on_bytes(new);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.progress(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.progress(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.progress(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.progress(cx, shut)
    }
}
