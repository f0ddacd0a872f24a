//! The body of a response: ext-proc answers, or what tonic made of another service's.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tonic::Status;

use super::answers::Answers;
use super::messages::Messages;
use crate::extproc::ProcessStream;
use crate::extproc::proto::{ProcessingRequest, ProcessingResponse};

/// Answers to the messages of an ext-proc call.
pub(super) type ProcessAnswers =
    Answers<ProcessStream<Messages<ProcessingRequest, Incoming>>, ProcessingResponse>;

/// Not boxed: there is one per request.
pub(super) enum Reply {
    Process(ProcessAnswers),
    Tonic(tonic::body::Body),
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.get_mut() {
            Self::Process(answers) => Pin::new(answers).poll_frame(cx),
            Self::Tonic(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Process(answers) => answers.is_end_stream(),
            Self::Tonic(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Process(answers) => answers.size_hint(),
            Self::Tonic(body) => body.size_hint(),
        }
    }
}
