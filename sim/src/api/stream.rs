//! Response bodies over HTTP: a finished one, or an event stream that follows the engine's progress.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};

use super::answer::Answer;
use super::body::{ChunkWriter, Usage};
use crate::driver::{Progress, Ticket};

/// Most events in one frame: bounds the memory of a stream whose client is slow.
const EVENTS_PER_FRAME: usize = 64;

/// The connection is to be cut (failure injection, or the engine is gone).
#[derive(Debug, thiserror::Error)]
#[error("the simulated engine cut the connection")]
pub struct Cut;

/// How an injected failure ends a stream, after how many tokens of its first choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// Cut the connection.
    Reset(usize),
    /// Say nothing more.
    Hang(usize),
}

/// A response body.
pub enum SimBody {
    /// All at once.
    Full(Option<Bytes>),
    /// Server-sent events.
    Events(Box<EventStream>),
}

impl SimBody {
    /// A body that is there already.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self::Full(Some(bytes.into()))
    }
}

impl Body for SimBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match self.get_mut() {
            Self::Full(bytes) => Poll::Ready(
                bytes
                    .take()
                    .filter(|bytes| !bytes.is_empty())
                    .map(|bytes| Ok(Frame::data(bytes))),
            ),
            Self::Events(events) => events
                .poll(context)
                .map(|frame| frame.map(|bytes| bytes.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Events(events) => events.ended,
        }
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self {
            Self::Full(bytes) => http_body::SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Events(_) => http_body::SizeHint::default(),
        }
    }
}

/// One streamed response. Dropping it ends the request in the engine.
pub struct EventStream {
    ticket: Ticket,
    writer: ChunkWriter,
    answers: Vec<Answer>,
    prefixes: Option<Vec<String>>,
    /// Tokens sent per choice.
    sent: Vec<usize>,
    /// Choices per prompt, and prompt tokens of each prompt.
    per_prompt: usize,
    prompt_tokens: Vec<usize>,
    fault: Option<Break>,
    buffer: BytesMut,
    /// Whether the tokens before a reset had a chance to leave.
    flushed: bool,
    ended: bool,
}

impl EventStream {
    /// A stream of `answers`, `answers.len() / prompt_tokens.len()` of them per prompt.
    pub fn new(
        ticket: Ticket,
        writer: ChunkWriter,
        answers: Vec<Answer>,
        prefixes: Option<Vec<String>>,
        prompt_tokens: Vec<usize>,
        fault: Option<Break>,
    ) -> Self {
        Self {
            ticket,
            writer,
            sent: vec![0; answers.len()],
            per_prompt: answers.len() / prompt_tokens.len().max(1),
            answers,
            prefixes,
            prompt_tokens,
            fault,
            buffer: BytesMut::new(),
            flushed: false,
            ended: false,
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let progress = self.ticket.progress().clone();
        progress.waker().register(context.waker());
        match self.fault {
            Some(Break::Reset(tokens)) if self.sent[0] >= tokens => {
                if !std::mem::replace(&mut self.flushed, true) {
                    // The server writes out what it has before it asks again.
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                self.ended = true;
                return Poll::Ready(Some(Err(Cut)));
            }
            Some(Break::Hang(tokens)) if self.sent[0] >= tokens => return Poll::Pending,
            _ => {}
        }
        let limit = match self.fault {
            Some(Break::Reset(tokens) | Break::Hang(tokens)) => tokens,
            None => usize::MAX,
        };
        // Read before the counters: what happened up to a failure is still sent.
        let failed = progress.failed();
        let mut events = 0;
        let mut complete = true;
        for index in 0..self.answers.len() {
            let produced = progress.generated(index).min(limit);
            while self.sent[index] < produced && events < EVENTS_PER_FRAME {
                self.write_token(index, &progress);
                events += 1;
            }
            complete &= self.sent[index] == self.answers[index].tokens.len();
        }
        if complete {
            let total = usage(&self.answers, &self.prompt_tokens, &progress);
            self.writer.done(&mut self.buffer, total);
            self.ended = true;
        }
        if !self.buffer.is_empty() {
            if events == EVENTS_PER_FRAME {
                context.waker().wake_by_ref();
            }
            return Poll::Ready(Some(Ok(self.buffer.split().freeze())));
        }
        if failed {
            self.ended = true;
            return Poll::Ready(Some(Err(Cut)));
        }
        Poll::Pending
    }

    fn write_token(&mut self, index: usize, progress: &Progress) {
        let token = self.sent[index];
        if token == 0 {
            let usage = self.choice_usage(index, 0, progress);
            self.writer.role(&mut self.buffer, index, usage);
            if let Some(prefix) = self.prefixes.as_ref().map(|prefixes| prefixes[index].as_str()) {
                self.writer.text(&mut self.buffer, index, prefix, None, usage);
            }
        }
        let answer = &self.answers[index];
        let last = token + 1 == answer.tokens.len();
        let text = answer.piece(token, token + 1);
        if last || !text.is_empty() {
            let end = last.then_some((answer.finish, answer.stop_reason.as_ref()));
            let usage = self.choice_usage(index, token + 1, progress);
            self.writer.text(&mut self.buffer, index, text, end, usage);
        }
        self.sent[index] += 1;
    }

    fn choice_usage(&self, index: usize, completion: usize, progress: &Progress) -> Usage {
        Usage {
            prompt: self.prompt_tokens[index / self.per_prompt],
            completion,
            cached: progress.cached(index),
        }
    }
}

/// Usage of a finished response: prompts count once, whatever `n` is.
pub fn usage(answers: &[Answer], prompt_tokens: &[usize], progress: &Progress) -> Usage {
    let per_prompt = answers.len() / prompt_tokens.len().max(1);
    Usage {
        prompt: prompt_tokens.iter().sum(),
        completion: answers.iter().map(|answer| answer.tokens.len()).sum(),
        cached: (0..prompt_tokens.len())
            .map(|prompt| progress.cached(prompt * per_prompt))
            .sum(),
    }
}
