//! The messages of a gRPC stream, decoded from the HTTP/2 frames that they came in.
//!
//! tonic's decoder first copies every frame into a buffer of its own, which it allocates per stream; bodies of
//! hundreds of KiB pass through here. A stream whose messages are compressed is left to tonic.

use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::Stream;
use http_body::Body;
use tonic::Status;

use super::pieces::Pieces;

/// Flag of compression and length, before each message (gRPC over HTTP/2, "Length-Prefixed-Message").
pub(super) const HEAD: usize = 5;

/// Reads messages `M` from the body `B` of a call.
pub struct Messages<M, B> {
    body: B,
    pieces: Pieces,
    /// Length of the message whose head was read.
    expected: Option<usize>,
    /// Longest message, in bytes.
    limit: usize,
    ended: bool,
    message: PhantomData<fn() -> M>,
}

impl<M, B> Messages<M, B> {
    /// The messages in `body`, each of at most `limit` bytes.
    pub fn new(body: B, limit: usize) -> Self {
        Self {
            body,
            pieces: Pieces::default(),
            expected: None,
            limit,
            ended: false,
            message: PhantomData,
        }
    }
}

impl<M: prost::Message + Default, B> Messages<M, B> {
    /// The next message, if all of it has come.
    fn next_message(&mut self) -> Result<Option<M>, Status> {
        let length = match self.expected {
            Some(length) => length,
            None if self.pieces.len() < HEAD => return Ok(None),
            None => self.head()?,
        };
        if self.pieces.len() < length {
            self.expected = Some(length);
            return Ok(None);
        }
        self.expected = None;
        // Decoded to its end at once: fields keep to the message's length whatever they say.
        let message = M::decode((&mut self.pieces).take(length))
            .map_err(|error| Status::internal(format!("failed to decode Protobuf message: {error}")))?;
        Ok(Some(message))
    }

    fn head(&mut self) -> Result<usize, Status> {
        let flag = self.pieces.get_u8();
        let length = self.pieces.get_u32() as usize;
        if flag != 0 {
            return Err(Status::internal(format!(
                "a message says that it is compressed (flag {flag}), and the call named no grpc-encoding"
            )));
        }
        if length > self.limit {
            return Err(Status::out_of_range(format!(
                "a message of {length} bytes is longer than the limit of {} bytes",
                self.limit
            )));
        }
        Ok(length)
    }
}

impl<M, B> Stream for Messages<M, B>
where
    M: prost::Message + Default,
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Item = Result<M, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if this.ended {
                return Poll::Ready(None);
            }
            match this.next_message() {
                Ok(Some(message)) => return Poll::Ready(Some(Ok(message))),
                Ok(None) => {}
                Err(status) => {
                    this.ended = true;
                    return Poll::Ready(Some(Err(status)));
                }
            }
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                // Trailers of a call say nothing.
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        this.pieces.push(data);
                    }
                }
                Some(Err(error)) => {
                    this.ended = true;
                    return Poll::Ready(Some(Err(Status::from_error(error.into()))));
                }
                None => {
                    this.ended = true;
                    if this.expected.is_some() || this.pieces.len() > 0 {
                        return Poll::Ready(Some(Err(Status::internal("the call ended inside a message"))));
                    }
                }
            }
        }
    }
}
