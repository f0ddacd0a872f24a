//! The end of an answer of which nothing else is missing.

use bytes::{Bytes, BytesMut};

use super::follow::StreamFollower;
use crate::BodyKind;
use crate::sse::{DONE, write_event};

/// `finish_reason` of an answer that used up its output cap.
pub const LENGTH: &str = "length";

/// The events that end the answer that `answer` followed: one with `reason` if none was passed on
/// yet, and the end mark.
pub fn ending(kind: BodyKind, answer: &StreamFollower, reason: &str) -> Bytes {
    let mut out = BytesMut::new();
    if let Some(opening) = answer.opening()
        && !answer.is_finished()
    {
        let text = if kind == BodyKind::ChatCompletions {
            "\"delta\":{}"
        } else {
            "\"text\":\"\""
        };
        let event = format!(
            "{{\"id\":{},\"object\":{},\"created\":{},\"model\":{},\"choices\":[{{\"index\":0,{text},\"logprobs\":null,\"finish_reason\":\"{reason}\"}}]}}",
            opening.id, opening.object, opening.created, opening.model
        );
        write_event(&mut out, event.as_bytes());
    }
    out.extend_from_slice(DONE);
    out.freeze()
}
