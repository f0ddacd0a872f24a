//! What must hold for any bytes on an ext-proc stream. The fuzz target, the property tests and the corpus replay call
//! [`ext_proc`].

mod picker;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::Stream;
use http_body::Frame;
use http_body_util::StreamBody;
use llmd_epp::extproc::ProcessStream;
use llmd_epp::extproc::proto::{Answer, Event, ProcessingRequest, ProcessingResponse};
use llmd_epp::grpc::{MessageLimits, Messages};
use prost::Message;
use tonic::Status;

use picker::Picker;

/// An empty pool.
const EMPTY: u8 = 1;
/// An endpoint comes while requests wait for one.
const COMES: u8 = 2;
/// Decisions are compared and nothing is answered.
const SHADOW: u8 = 4;
const FRAME_HEAD: usize = 5;

thread_local! {
    static PICKER: Picker = Picker::new();
}

/// Fuzz input: one byte of flags, one for after how many answers nobody asks any more, then the bytes of the stream
/// (gRPC frames).
///
/// Whatever comes, nothing stays booked, held, or open; a head is answered once and before its body, the end is last,
/// and the bytes that go out are those that came in.
pub fn ext_proc(data: &[u8]) {
    answers(data);
}

/// How many answers [`ext_proc`] looked at.
pub fn answers(data: &[u8]) -> usize {
    let [flags, most, bytes @ ..] = data else {
        return 0;
    };
    PICKER.with(|picker| converse(picker, *flags, usize::from(*most), bytes))
}

fn converse(picker: &Picker, flags: u8, most: usize, bytes: &[u8]) -> usize {
    let _entered = picker.runtime.enter();
    picker.set_endpoints(flags & EMPTY == 0);
    let shared = if flags & SHADOW == 0 {
        &picker.answering
    } else {
        &picker.shadowing
    };
    // Cut somewhere else for every length.
    let frames = bytes.chunks(1 + bytes.len() % 97).map(Bytes::copy_from_slice);
    let frames: Vec<_> = frames
        .map(|data| Ok::<_, Infallible>(Frame::data(data)))
        .collect();
    let body = StreamBody::new(futures_util::stream::iter(frames));
    let incoming = Messages::new(body, MessageLimits::default().receive);
    let mut stream = ProcessStream::new(Arc::clone(shared), incoming);
    let mut cx = Context::from_waker(Waker::noop());
    let mut answers = Vec::new();
    while answers.len() < most {
        match Pin::new(&mut stream).poll_next(&mut cx) {
            Poll::Ready(Some(Ok(answer))) => answers.push(answer),
            Poll::Ready(Some(Err(status))) => {
                check_status(&status);
                break;
            }
            Poll::Pending if flags & COMES != 0 && !picker.has_endpoints() => picker.set_endpoints(true),
            Poll::Ready(None) | Poll::Pending => break,
        }
    }
    assert!(flags & SHADOW == 0 || answers.is_empty(), "a shadow answered");
    in_order(&answers, &sent(bytes));
    drop(stream);
    picker.is_idle();
    answers.len()
}

fn check_status(status: &Status) {
    assert!(
        !status.message().is_empty(),
        "a stream failed without a reason: {status:?}"
    );
}

/// The request's body as it came in behind its head, up to what is no message.
fn sent(mut bytes: &[u8]) -> Vec<u8> {
    let (mut body, mut began) = (Vec::new(), false);
    while let Some(head) = bytes.first_chunk::<FRAME_HEAD>() {
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let Some(frame) = bytes.get(FRAME_HEAD..FRAME_HEAD + length) else {
            break;
        };
        let Ok(message) = ProcessingRequest::decode(frame) else {
            break;
        };
        match message.event {
            Some(Event::RequestHeaders(_)) => began = true,
            Some(Event::RequestBody(chunk)) if began => body.extend_from_slice(&chunk.body),
            _ => {}
        }
        bytes = &bytes[FRAME_HEAD + length..];
    }
    body
}

fn in_order(answers: &[ProcessingResponse], sent: &[u8]) {
    let (mut heads, mut ended, mut is_over, mut at) = (0, false, false, 0);
    for response in answers {
        assert!(!is_over, "an answer after the last one");
        match &response.answer {
            Some(Answer::RequestHeaders(_)) => {
                heads += 1;
                assert_eq!(heads, 1, "two answers to one head");
            }
            Some(Answer::RequestBody(answer)) => {
                assert_eq!(heads, 1, "a body before its head");
                assert!(!ended, "a chunk after the end");
                let mutation = answer
                    .response
                    .as_ref()
                    .and_then(|one| one.body_mutation.as_ref());
                let chunk = mutation
                    .and_then(|mutation| mutation.streamed_response.as_ref())
                    .expect("a streamed chunk");
                assert!(
                    sent[at..].starts_with(&chunk.body),
                    "other bytes went out than came in"
                );
                at += chunk.body.len();
                ended = chunk.end_of_stream;
            }
            Some(Answer::Immediate(_)) => is_over = true,
            _ => {}
        }
    }
}
