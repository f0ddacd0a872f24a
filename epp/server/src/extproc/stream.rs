//! The answer stream of one ext-proc call: reads messages as it is asked for answers.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use futures_util::Stream;
use llmd_epp_core::Termination;
use tonic::{Code, Status};

use super::ExtProc;
use super::conversation::Conversation;
use super::proto::{ProcessingRequest, ProcessingResponse};
use super::shadow::Shadow;

/// What happens with the messages.
enum Talk {
    Answering(Box<Conversation>),
    Shadowing(Box<Shadow>),
}

impl Talk {
    fn new(shared: &Arc<ExtProc>) -> Self {
        match &shared.shadow {
            Some(metrics) => Self::Shadowing(Box::new(Shadow::new(Arc::clone(shared), Arc::clone(metrics)))),
            None => Self::Answering(Box::new(Conversation::new(Arc::clone(shared)))),
        }
    }

    fn next_answer(&mut self) -> Option<ProcessingResponse> {
        match self {
            Self::Answering(conversation) => conversation.answers.pop_front(),
            Self::Shadowing(_) => None,
        }
    }

    fn end(&mut self) -> &mut Option<Result<(), Status>> {
        match self {
            Self::Answering(conversation) => &mut conversation.end,
            Self::Shadowing(shadow) => &mut shadow.end,
        }
    }

    fn on_message(&mut self, now: Instant, message: ProcessingRequest) {
        match self {
            Self::Answering(conversation) => conversation.on_message(now, message),
            Self::Shadowing(shadow) => shadow.on_message(now, message),
        }
    }

    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Answering(conversation) => conversation.poll_turn(cx),
            // Nobody is there for whom a shadow could wait.
            Self::Shadowing(_) => Poll::Pending,
        }
    }

    fn close(&mut self, now: Instant, cause: Termination) {
        match self {
            Self::Answering(conversation) => drop(conversation.close(now, cause)),
            Self::Shadowing(shadow) => shadow.close(now, cause),
        }
    }
}

/// Answers to one stream of messages. Dropping it, at whatever point, ends the request.
pub struct ProcessStream<S> {
    incoming: S,
    conversation: Talk,
    shared: Arc<ExtProc>,
    opened: Instant,
    code: Code,
}

impl<S> ProcessStream<S>
where
    S: Stream<Item = Result<ProcessingRequest, Status>> + Unpin,
{
    /// Answers to the messages of one call.
    pub fn new(shared: Arc<ExtProc>, incoming: S) -> Self {
        if let Some(metrics) = &shared.stream_metrics {
            metrics.opened();
        }
        Self {
            incoming,
            conversation: Talk::new(&shared),
            shared,
            opened: Instant::now(),
            // A client that leaves is no error of the stream: upstream ends it with OK.
            code: Code::Ok,
        }
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<ProcessingResponse, Status>>> {
        loop {
            if let Some(answer) = self.conversation.next_answer() {
                return Poll::Ready(Some(Ok(answer)));
            }
            if let Some(end) = self.conversation.end() {
                return Poll::Ready(std::mem::replace(end, Ok(())).err().map(Err));
            }
            if self.conversation.poll_turn(cx).is_ready() {
                continue;
            }
            let message = ready!(Pin::new(&mut self.incoming).poll_next(cx));
            let now = Instant::now();
            match message {
                Some(Ok(message)) => self.conversation.on_message(now, message),
                Some(Err(status)) if status.code() != Code::Cancelled => {
                    self.conversation.close(now, Termination::Error);
                    let text = format!("cannot receive stream request: {}", status.message());
                    *self.conversation.end() = Some(Err(Status::unknown(text)));
                }
                Some(Err(_)) | None => {
                    self.conversation.close(now, Termination::ClientDisconnect);
                    *self.conversation.end() = Some(Ok(()));
                }
            }
        }
    }
}

impl<S> Stream for ProcessStream<S>
where
    S: Stream<Item = Result<ProcessingRequest, Status>> + Unpin,
{
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

impl<S> Drop for ProcessStream<S> {
    fn drop(&mut self) {
        let now = Instant::now();
        self.conversation.close(now, Termination::ClientDisconnect);
        if let Some(metrics) = &self.shared.stream_metrics {
            metrics.closed(self.code, now.saturating_duration_since(self.opened));
        }
    }
}
