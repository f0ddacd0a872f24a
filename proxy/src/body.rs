//! Body types of both directions.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::trailers::prepare;

/// What is sent to a target.
pub(crate) enum TargetBody {
    /// A held body; it can be built again for another target.
    Held(HeldBody),
    /// The client's body as it arrives, with the bytes it may still carry.
    Streamed {
        body: Incoming,
        left: usize,
        trails: bool,
    },
}

/// A body that is here whole, in pieces.
#[derive(Clone)]
pub(crate) struct HeldBody {
    pub(crate) pieces: VecDeque<Bytes>,
    /// What stands behind it.
    pub(crate) trailers: Option<HeaderMap>,
}

impl TargetBody {
    /// The same body for a target that has no use for trailers.
    pub(crate) fn without_trailers(mut self) -> Self {
        match &mut self {
            Self::Held(held) => held.trailers = None,
            Self::Streamed { trails, .. } => *trails = false,
        }
        self
    }
}

/// Why a streamed request body stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamedBodyError {
    #[error("the client's body broke off")]
    Client(#[from] hyper::Error),
    #[error("the body is larger than the limit")]
    TooLarge,
}

impl Body for TargetBody {
    type Data = Bytes;
    type Error = StreamedBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StreamedBodyError>>> {
        match &mut *self {
            Self::Held(held) => {
                let piece = held.pieces.pop_front().map(Frame::data);
                let frame = piece.or_else(|| held.trailers.take().map(Frame::trailers));
                Poll::Ready(frame.map(Ok))
            }
            Self::Streamed { body, left, trails } => match std::task::ready!(Pin::new(body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if data.remaining() > *left => {
                        Poll::Ready(Some(Err(StreamedBodyError::TooLarge)))
                    }
                    Ok(data) => {
                        *left -= data.remaining();
                        Poll::Ready(Some(Ok(Frame::data(data))))
                    }
                    // They are the end of the body.
                    Err(frame) => {
                        let trailers = frame.into_trailers().ok().filter(|_| *trails);
                        Poll::Ready(
                            trailers
                                .and_then(prepare)
                                .map(|trailers| Ok(Frame::trailers(trailers))),
                        )
                    }
                },
                Some(Err(error)) => Poll::Ready(Some(Err(error.into()))),
                None => Poll::Ready(None),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Held(held) => held.pieces.is_empty() && held.trailers.is_none(),
            Self::Streamed { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Held(held) => {
                SizeHint::with_exact(held.pieces.iter().map(|piece| piece.len() as u64).sum())
            }
            Self::Streamed { body, .. } => body.size_hint(),
        }
    }
}

/// A body that is known whole.
pub(crate) struct WholeBody(Option<Bytes>);

impl From<Bytes> for WholeBody {
    fn from(bytes: Bytes) -> Self {
        Self((!bytes.is_empty()).then_some(bytes))
    }
}

impl Body for WholeBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}
