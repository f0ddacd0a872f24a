//! The body of every response: a relay and what ends with it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::activity::OpenRequest;
use crate::relay::{Relay, RelayError};
use crate::route::Route;
use crate::stall::Progress;

/// A response body that keeps its request open until it is over.
pub(crate) struct Answer<R: Route> {
    body: Relay<R>,
    progress: Option<Arc<Progress>>,
    _open: OpenRequest,
}

impl<R: Route> Answer<R> {
    pub(crate) fn new(body: Relay<R>, open: OpenRequest) -> Self {
        Self {
            body,
            progress: Progress::current(),
            _open: open,
        }
    }
}

impl<R: Route> Body for Answer<R> {
    type Data = Bytes;
    type Error = RelayError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RelayError>>> {
        if let Some(progress) = &self.progress {
            progress.asked();
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(progress) = &self.progress {
            progress.handed_over();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
