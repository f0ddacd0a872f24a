//! Every bound and deadline of the forwarder, in one place.

use std::time::Duration;

/// Bounds of one [`crate::Server`]. All of them are enforced; none may be zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest request body in bytes; more is answered with 413.
    pub request_body_bytes: usize,
    /// Bytes of the request bodies that are held at the same time; what goes over it is answered with 429.
    pub held_body_bytes: usize,
    /// Requests in flight; more are answered with 503 and `Retry-After`.
    pub concurrent_requests: usize,
    /// Open client connections; further ones wait in the listener's backlog.
    pub connections: usize,
    /// From the first byte of a request head to its last, and for a TLS handshake; then the connection ends.
    pub request_head: Duration,
    /// How long a client's connection may be open without a request.
    pub client_idle: Duration,
    /// How long a client may take no byte of its answer; then the answer is dropped.
    pub client_stall: Duration,
    /// From the request head to the last byte of the answer; then 504, or an error event, or a cut. `None`: no bound.
    pub total: Option<Duration>,
    /// Idle connections kept per target.
    pub idle_connections_per_target: usize,
    /// How long an idle connection to a target may be reused.
    pub idle_connection: Duration,
    /// Deadline for a TCP connection to a target.
    pub connect: Duration,
    /// Longest pause between two chunks of a request body; then 408.
    pub request_idle: Duration,
    /// From a request head to the last byte of a body that is held; then 408. A drip of bytes has no long pause.
    pub request_body: Duration,
    /// Deadline for the first byte of an answer; then 504. Long, because a model may think first.
    pub response_head: Duration,
    /// Longest pause between two chunks of an answer.
    pub response_idle: Duration,
    /// How long requests in flight may take after shutdown began.
    pub drain: Duration,
    /// Targets tried for one request, the first included.
    pub attempts: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_body_bytes: 64 * 1024 * 1024,
            held_body_bytes: 4 * 1024 * 1024 * 1024,
            concurrent_requests: 40_000,
            connections: 40_000,
            request_head: Duration::from_secs(30),
            client_idle: Duration::from_secs(300),
            client_stall: Duration::from_secs(300),
            total: None,
            idle_connections_per_target: 256,
            idle_connection: Duration::from_secs(60),
            connect: Duration::from_secs(5),
            request_idle: Duration::from_secs(60),
            request_body: Duration::from_secs(600),
            response_head: Duration::from_secs(3600),
            response_idle: Duration::from_secs(600),
            drain: Duration::from_secs(30),
            attempts: 4,
        }
    }
}
