//! The body of every response: a relay and what ends with it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::access_log::{Ended, Entry};
use crate::activity::OpenRequest;
use crate::relay::{Relay, RelayError};
use crate::route::Route;
use crate::stall::Progress;

/// A response body that keeps its request open until it is over.
pub(crate) struct Answer<R: Route> {
    body: Relay<R>,
    progress: Option<Arc<Progress>>,
    entry: Option<Box<Entry>>,
    _open: OpenRequest,
}

impl<R: Route> Answer<R> {
    pub(crate) fn new(body: Relay<R>, open: OpenRequest, entry: Option<Box<Entry>>) -> Self {
        let mut answer = Self {
            body,
            progress: Progress::current(),
            entry,
            _open: open,
        };
        answer.note_end();
        answer
    }

    /// hyper does not ask again after the last byte of a body that knows its end.
    fn note_end(&mut self) {
        if let Some(entry) = self.entry.as_mut().filter(|_| self.body.is_end_stream()) {
            entry.ended(Ended::Complete);
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
        match (&mut self.entry, &frame) {
            (Some(entry), Some(Ok(frame))) => entry.sent(frame.data_ref().map_or(0, Bytes::len)),
            (Some(entry), Some(Err(_))) => entry.ended(Ended::Broken),
            (Some(entry), None) => entry.ended(Ended::Complete),
            (None, _) => {}
        }
        if matches!(frame, Some(Ok(_))) {
            self.note_end();
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
