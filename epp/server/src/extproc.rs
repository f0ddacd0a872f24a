//! Envoy's external processing (`ext_proc` v3) in `FULL_DUPLEX_STREAMED` mode.
//!
//! ```text
//!  Envoy ──request headers, body──▶ Conversation ──▶ Exchange (parse, schedule, reserve)
//!        ◀─headers answer, body────┘      ▲
//!        ──response headers, body─────────┘──▶ the same bytes back, usage read on the side
//! ```
//!
//! The answer stream itself reads the incoming messages: one task per stream, no channel between.

pub mod proto;

mod answers;
mod conversation;
#[cfg(test)]
mod interleavings;
mod metadata;
mod metrics;
mod served;
mod shadow;
mod shadow_metrics;
mod stream;

use std::future::{Ready, ready};
use std::sync::{Arc, Once};
use std::time::Instant;

use llmd_epp_api::{EndpointName, Snapshot};
use llmd_epp_core::Epp;
use tonic::server::StreamingService;
use tonic::{Request, Response, Status, Streaming};

pub use metrics::{ReceivedBytes, StreamMetrics};
pub use shadow_metrics::ShadowMetrics;
pub use stream::ProcessStream;

use crate::body_budget::BodyBudget;
use crate::waiting::WaitingRoom;
use proto::{ProcessingRequest, ProcessingResponse};

/// gRPC service name; the health check of Envoy's chart asks for it.
pub const SERVICE: &str = "envoy.service.ext_proc.v3.ExternalProcessor";
/// HTTP/2 path of the only method.
pub const PROCESS: &str = "/envoy.service.ext_proc.v3.ExternalProcessor/Process";

/// Gives out the endpoints as they are now.
pub type Snapshots = Arc<dyn Fn() -> Arc<Snapshot> + Send + Sync>;

/// Told that an endpoint answered, or that it failed (5xx).
pub type Answers = Arc<dyn Fn(&EndpointName, bool, Instant) + Send + Sync>;

/// What every stream shares.
pub struct ExtProc {
    /// Where requests are decided.
    pub epp: Arc<Epp>,
    /// The pool.
    pub snapshots: Snapshots,
    /// Told how endpoints answer.
    pub answers: Answers,
    /// `--emit-endpoint-scores`.
    pub emit_endpoint_scores: bool,
    /// A wrong configuration of Envoy was told.
    pub warned: Once,
    /// Counts what Envoy sends.
    pub received: ReceivedBytes,
    /// `--enable-grpc-stream-metrics`.
    pub stream_metrics: Option<StreamMetrics>,
    /// `--shadow`: answers nothing and compares.
    pub shadow: Option<Arc<ShadowMetrics>>,
    /// `--max-buffered-body-size`: request bodies that wait for their end, over all streams.
    pub bodies: Arc<BodyBudget>,
    /// Where requests wait while the pool is empty; `None` refuses them.
    pub waiting: Option<Arc<WaitingRoom>>,
    /// `--tracing`: each stream is a span, and engines are told its context.
    pub tracing: bool,
}

/// Starts a [`ProcessStream`] per call, where tonic decodes the messages.
#[derive(Clone)]
pub(crate) struct Process(pub(crate) Arc<ExtProc>);

impl StreamingService<ProcessingRequest> for Process {
    type Response = ProcessingResponse;
    type ResponseStream = ProcessStream<Streaming<ProcessingRequest>>;
    type Future = Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<ProcessingRequest>>) -> Self::Future {
        let stream = ProcessStream::new(Arc::clone(&self.0), request.into_inner());
        ready(Ok(Response::new(stream)))
    }
}
