//! The answer stream of one ext-proc call: reads messages as it is asked for answers.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use futures_util::Stream;
use llmd_epp_core::Termination;
use tonic::{Code, Status, Streaming};

use super::ExtProc;
use super::conversation::Conversation;
use super::proto::{ProcessingRequest, ProcessingResponse};

/// Answers to one stream of messages. Dropping it, at whatever point, ends the request.
pub struct ProcessStream {
    incoming: Streaming<ProcessingRequest>,
    conversation: Conversation,
    shared: Arc<ExtProc>,
    opened: Instant,
    code: Code,
}

impl ProcessStream {
    pub(super) fn new(shared: Arc<ExtProc>, incoming: Streaming<ProcessingRequest>) -> Self {
        if let Some(metrics) = &shared.stream_metrics {
            metrics.opened();
        }
        Self {
            incoming,
            conversation: Conversation::new(Arc::clone(&shared)),
            shared,
            opened: Instant::now(),
            // A client that leaves is no error of the stream: upstream ends it with OK.
            code: Code::Ok,
        }
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<ProcessingResponse, Status>>> {
        loop {
            if let Some(answer) = self.conversation.answers.pop_front() {
                return Poll::Ready(Some(Ok(answer)));
            }
            if let Some(end) = &mut self.conversation.end {
                return Poll::Ready(std::mem::replace(end, Ok(())).err().map(Err));
            }
            let message = ready!(Pin::new(&mut self.incoming).poll_next(cx));
            let now = Instant::now();
            match message {
                Some(Ok(message)) => self.conversation.on_message(now, message),
                Some(Err(status)) if status.code() != Code::Cancelled => {
                    self.conversation.close(now, Termination::Error);
                    let text = format!("cannot receive stream request: {}", status.message());
                    self.conversation.end = Some(Err(Status::unknown(text)));
                }
                Some(Err(_)) | None => {
                    self.conversation.close(now, Termination::ClientDisconnect);
                    self.conversation.end = Some(Ok(()));
                }
            }
        }
    }
}

impl Stream for ProcessStream {
    type Item = Result<ProcessingResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let stream = self.get_mut();
        let polled = stream.poll_answer(cx);
        match &polled {
            Poll::Ready(Some(Err(status))) => stream.code = status.code(),
            Poll::Ready(Some(Ok(_)) | None) | Poll::Pending => {}
        }
        polled
    }
}

impl Drop for ProcessStream {
    fn drop(&mut self) {
        let now = Instant::now();
        self.conversation.close(now, Termination::ClientDisconnect);
        if let Some(metrics) = &self.shared.stream_metrics {
            metrics.closed(self.code, now.saturating_duration_since(self.opened));
        }
    }
}
