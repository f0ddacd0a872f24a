//! A stream of answers as the body of a gRPC response: what is ready at once goes out in one frame of just its size.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::Stream;
use http::HeaderMap;
use http_body::{Body, Frame};
use prost::Message;
use tonic::Status;

use super::messages::HEAD;

/// So many bytes go out without a look at what else is ready.
const ENOUGH: usize = 32 << 10;

/// The answers of `S`, then their status.
pub(super) struct Answers<S, M> {
    stream: S,
    /// Encoded with the next frame.
    ready: Vec<M>,
    /// Longest message, in bytes.
    limit: usize,
    /// How the stream ended; told after what is ready.
    end: Option<Status>,
    is_told: bool,
}

impl<S, M: Message> Answers<S, M> {
    /// Messages of at most `limit` bytes from `stream`.
    pub(super) fn new(stream: S, limit: usize) -> Self {
        Self {
            stream,
            ready: Vec::new(),
            limit,
            end: None,
            is_told: false,
        }
    }

    fn encode(&mut self, bytes: usize) -> Bytes {
        let mut frame = BytesMut::with_capacity(bytes);
        for message in self.ready.drain(..) {
            frame.put_u8(0);
            let head = frame.len();
            frame.put_u32(0);
            message.encode_raw(&mut frame);
            // Lengths were checked against the limit of 32 bits when the message became ready.
            let length = (frame.len() - head - size_of::<u32>()) as u32;
            frame[head..head + size_of::<u32>()].copy_from_slice(&length.to_be_bytes());
        }
        frame.freeze()
    }
}

impl<S, M> Body for Answers<S, M>
where
    S: Stream<Item = Result<M, Status>> + Unpin,
    M: Message + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let mut bytes = 0;
        while this.end.is_none() && bytes < ENOUGH {
            match Pin::new(&mut this.stream).poll_next(cx) {
                Poll::Ready(Some(Ok(message))) => {
                    let length = message.encoded_len();
                    if length > this.limit || u32::try_from(length).is_err() {
                        let text = format!(
                            "an answer of {length} bytes is longer than the limit of {} bytes",
                            this.limit
                        );
                        this.end = Some(Status::out_of_range(text));
                    } else {
                        bytes += HEAD + length;
                        this.ready.push(message);
                    }
                }
                Poll::Ready(Some(Err(status))) => this.end = Some(status),
                Poll::Ready(None) => this.end = Some(Status::ok("")),
                Poll::Pending => break,
            }
        }
        if bytes > 0 {
            return Poll::Ready(Some(Ok(Frame::data(this.encode(bytes)))));
        }
        match &this.end {
            Some(_) if this.is_told => Poll::Ready(None),
            Some(status) => {
                this.is_told = true;
                let mut trailers = HeaderMap::with_capacity(2);
                Poll::Ready(Some(
                    status
                        .add_header(&mut trailers)
                        .map(|()| Frame::trailers(trailers)),
                ))
            }
            None => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_told
    }
}
