//! The one streaming HTTP forwarder.
//!
//! Takes in: client connections (HTTP/1.1 and HTTP/2, with or without TLS) and a [`Route`] that decides.
//! Holds: a bounded pool of kept-alive connections per target, a permit per request in flight.
//! Gives out: the target's answer, chunk by chunk, or one error that names its cause.
//!
//! ```text
//!  client ──▶ server ──▶ exchange ──begin/plan/replan──▶ Route, Flight (the caller's)
//!                           │                                   ▲
//!                           └──▶ pool ──▶ target ──▶ relay ──chunks┘──▶ client
//! ```
//!
//! A request whose body is held may move to another target as long as no byte of an answer has
//! reached the client: the head of an answer is sent together with its first body chunk. After that an
//! event stream moves when the flight knows a request for the rest ([`Flight::resume`]). A WebSocket becomes a
//! tunnel once its target agrees.

mod access_log;
mod activity;
mod answer;
mod attempt;
mod body;
mod caller;
mod connect;
mod connection;
mod events;
mod exchange;
mod headers;
mod held;
mod limits;
mod pool;
mod relay;
mod reply;
mod review;
mod route;
mod server;
mod stall;
mod trailers;
mod transport;
mod upgrade;

pub use access_log::{AccessLog, Ended, Record};
pub use caller::{CallError, Caller};
pub use connect::{TargetProtocol, TargetTls};
pub use limits::Limits;
pub use reply::LocalReply;
pub use route::{BodyMode, Flight, Outcome, Plan, Resumption, Review, Route};
pub use server::{ServeError, Server};
