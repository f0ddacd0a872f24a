//! Builds the answers: header changes, body chunks cut to size, immediate responses.

use std::sync::Arc;

use bytes::Bytes;
use llmd_epp_api::Rejection;
use llmd_epp_core::Routed;
use llmd_epp_core::exchange::HeaderChange;
use llmd_openai::header;

use super::metadata;
use super::proto::{
    Answer, AppendAction, BodyMutation, CommonAnswer, CommonResponse, HeaderMutation, HeaderValue,
    HeaderValueOption, HttpBody, HttpStatus, ImmediateResponse, ProcessingResponse, TrailersAnswer,
};

/// Longest body chunk of an answer, upstream's value; Envoy recommends at most 64 KiB.
const MAX_CHUNK: usize = 62_000;

/// Which body a chunk belongs to.
#[derive(Clone, Copy)]
pub(super) enum Direction {
    Request,
    Response,
}

/// The answer to the request's head.
pub(super) fn request_headers(
    routed: &Routed,
    body_len: usize,
    new_headers: Vec<(String, String)>,
    scores: Option<Vec<(Arc<str>, f64)>>,
) -> ProcessingResponse {
    let destination = &routed.destination;
    let mut set_headers = Vec::with_capacity(3 + routed.set_headers.len());
    set_headers.push(set(
        Bytes::from_static(header::DESTINATION.as_bytes()),
        copy(destination),
    ));
    if body_len > 0 {
        set_headers.push(set(
            Bytes::from_static(b"Content-Length"),
            body_len.to_string().into(),
        ));
    }
    set_headers.extend(
        new_headers
            .into_iter()
            .map(|(name, value)| set(name.into(), value.into())),
    );
    set_headers.extend(
        routed
            .set_headers
            .iter()
            .map(|change| set(copy(&change.name), copy(&change.value))),
    );
    let remove_headers = routed.remove_headers.iter().map(|name| copy(name)).collect();
    let response = CommonResponse {
        header_mutation: Some(HeaderMutation {
            set_headers,
            remove_headers,
        }),
        body_mutation: None,
        clear_route_cache: true,
    };
    ProcessingResponse {
        answer: Some(Answer::RequestHeaders(CommonAnswer {
            response: Some(response),
        })),
        dynamic_metadata: Some(metadata::of_request(destination, scores, &routed.metadata)),
    }
}

/// The answer to the response's head: upstream's debug marker, and what plugins set.
pub(super) fn response_headers(changes: &[HeaderChange]) -> ProcessingResponse {
    let marker = Bytes::from_static(header::WENT_INTO_RESPONSE_HEADERS.as_bytes());
    let mut set_headers = vec![set(marker, Bytes::from_static(b"true"))];
    let changes = changes.iter();
    set_headers.extend(changes.map(|change| set(copy(&change.name), copy(&change.value))));
    let mutation = HeaderMutation {
        set_headers,
        remove_headers: Vec::new(),
    };
    let response = CommonResponse {
        header_mutation: Some(mutation),
        ..CommonResponse::default()
    };
    plain(Answer::ResponseHeaders(CommonAnswer {
        response: Some(response),
    }))
}

/// Body answers for `chunks`, in pieces that share their memory. With `end`, the last piece ends the
/// body; an ended body without bytes is one empty piece.
pub(super) fn body(
    direction: Direction,
    chunks: impl IntoIterator<Item = Bytes>,
    end: bool,
    answers: &mut impl Extend<ProcessingResponse>,
) {
    let mut last: Option<Bytes> = None;
    for mut chunk in chunks {
        while !chunk.is_empty() {
            let piece = chunk.split_to(chunk.len().min(MAX_CHUNK));
            if let Some(previous) = last.replace(piece) {
                answers.extend([streamed(direction, previous, false)]);
            }
        }
    }
    if end || last.is_some() {
        answers.extend([streamed(direction, last.unwrap_or_default(), end)]);
    }
}

fn streamed(direction: Direction, body: Bytes, end_of_stream: bool) -> ProcessingResponse {
    let mutation = BodyMutation {
        streamed_response: Some(HttpBody { body, end_of_stream }),
    };
    let response = CommonResponse {
        body_mutation: Some(mutation),
        ..CommonResponse::default()
    };
    let answer = CommonAnswer {
        response: Some(response),
    };
    plain(match direction {
        Direction::Request => Answer::RequestBody(answer),
        Direction::Response => Answer::ResponseBody(answer),
    })
}

/// The answer to trailers.
pub(super) fn trailers(direction: Direction) -> ProcessingResponse {
    plain(match direction {
        Direction::Request => Answer::RequestTrailers(TrailersAnswer::default()),
        Direction::Response => Answer::ResponseTrailers(TrailersAnswer::default()),
    })
}

/// Ends the request with the rejection's status and body.
pub(super) fn immediate(rejection: &Rejection) -> ProcessingResponse {
    let headers = rejection.reason.map(|reason| HeaderMutation {
        set_headers: vec![set(
            Bytes::from_static(header::REQUEST_DROPPED_REASON.as_bytes()),
            Bytes::from_static(reason.as_str().as_bytes()),
        )],
        remove_headers: Vec::new(),
    });
    plain(Answer::Immediate(ImmediateResponse {
        status: Some(HttpStatus {
            code: i32::from(rejection.code.http_status()),
        }),
        headers,
        body: rejection.body().into(),
    }))
}

fn plain(answer: Answer) -> ProcessingResponse {
    ProcessingResponse {
        answer: Some(answer),
        dynamic_metadata: None,
    }
}

fn copy(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn set(key: Bytes, value: Bytes) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue {
            key,
            value: Bytes::new(),
            raw_value: value,
        }),
        append_action: AppendAction::OverwriteIfExistsOrAdd.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(chunks: &[usize], end: bool) -> Vec<(usize, bool)> {
        let mut answers = Vec::new();
        let chunks = chunks.iter().map(|len| Bytes::from(vec![b'x'; *len]));
        body(Direction::Request, chunks, end, &mut answers);
        let pieces = answers.into_iter().map(|answer| match answer.answer {
            Some(Answer::RequestBody(CommonAnswer {
                response: Some(response),
            })) => {
                let chunk = response.body_mutation.and_then(|body| body.streamed_response);
                chunk.map(|chunk| (chunk.body.len(), chunk.end_of_stream))
            }
            _ => None,
        });
        pieces.map(|piece| piece.expect("a body chunk")).collect()
    }

    #[test]
    fn bodies_are_cut_at_62000_bytes_and_only_the_last_piece_ends_them() {
        assert_eq!(pieces(&[62_000], true), [(62_000, true)]);
        assert_eq!(
            pieces(&[62_001, 5], true),
            [(62_000, false), (1, false), (5, true)]
        );
        assert_eq!(pieces(&[3, 0], true), [(3, true)]);
        assert_eq!(pieces(&[3], false), [(3, false)]);
        assert_eq!(pieces(&[], true), [(0, true)]);
        assert_eq!(pieces(&[], false), []);
    }

    #[test]
    fn cutting_shares_the_received_bytes() {
        let chunk = Bytes::from(vec![b'x'; 100_000]);
        let mut answers = Vec::new();
        body(Direction::Response, [chunk.clone()], false, &mut answers);
        let Some(Answer::ResponseBody(CommonAnswer {
            response: Some(response),
        })) = &answers[1].answer
        else {
            unreachable!("the second piece")
        };
        let piece = response
            .body_mutation
            .as_ref()
            .and_then(|body| body.streamed_response.as_ref());
        assert_eq!(piece.expect("a chunk").body.as_ptr(), chunk[MAX_CHUNK..].as_ptr());
    }
}
