//! The stub's answers, right or wrong.

use std::collections::BTreeMap;

use bytes::Bytes;
use llmd_epp_conformance::transcript::{DESTINATION, DROPPED, LB};
use llmd_epp_conformance::wire::{
    Answer, BodyChange, BodyMutation, CommonAnswer, CommonResponse, HeaderMutation, HeaderValue,
    HeaderValueOption, HttpBody, HttpStatus, ImmediateResponse, ProcessingResponse,
};
use prost_types::value::Kind;
use prost_types::{Struct, Value};

use super::Fault;

pub(super) fn plain(answer: Answer) -> ProcessingResponse {
    ProcessingResponse {
        answer: Some(answer),
        ..ProcessingResponse::default()
    }
}

pub(super) fn set(name: &str, value: &str, fault: Option<Fault>) -> HeaderValueOption {
    let as_text = fault == Some(Fault::TextValues);
    HeaderValueOption {
        header: Some(HeaderValue {
            key: name.to_owned(),
            value: if as_text { value.to_owned() } else { String::new() },
            raw_value: if as_text {
                Bytes::new()
            } else {
                value.to_owned().into()
            },
        }),
        append: (fault == Some(Fault::DestinationAppended)).then_some(true),
        append_action: if fault == Some(Fault::DestinationOnlyIfAbsent) {
            1
        } else {
            2
        },
    }
}

/// The answer to the request's head.
pub(super) fn head(
    destination: &str,
    mut set_headers: Vec<HeaderValueOption>,
    remove_headers: Vec<String>,
    fault: Option<Fault>,
) -> ProcessingResponse {
    let name = if fault == Some(Fault::DestinationUnderAnotherName) {
        "x-gateway-destination"
    } else {
        DESTINATION
    };
    set_headers.insert(0, set(name, destination, fault));
    let response = CommonResponse {
        status: i32::from(fault == Some(Fault::ContinueAndReplace)),
        header_mutation: Some(HeaderMutation {
            set_headers,
            remove_headers,
        }),
        body_mutation: None,
        clear_route_cache: fault != Some(Fault::NoClearRouteCache),
    };
    let told = if fault == Some(Fault::MetadataDiffers) {
        "192.0.2.7:1"
    } else {
        destination
    };
    let text = |text: &str| Value {
        kind: Some(Kind::StringValue(text.to_owned())),
    };
    let inner = Struct {
        fields: BTreeMap::from([(DESTINATION.to_owned(), text(told))]),
    };
    let namespace = Value {
        kind: Some(Kind::StructValue(inner)),
    };
    let metadata = Struct {
        fields: BTreeMap::from([(LB.to_owned(), namespace)]),
    };
    ProcessingResponse {
        dynamic_metadata: (fault != Some(Fault::NoMetadata)).then_some(metadata),
        ..plain(Answer::RequestHeaders(CommonAnswer {
            response: Some(response),
        }))
    }
}

/// Body answers in pieces.
pub(super) fn body(
    bytes: &Bytes,
    end: bool,
    wrap: fn(CommonAnswer) -> Answer,
    fault: Option<Fault>,
    long: Fault,
) -> Vec<ProcessingResponse> {
    let longest = if fault == Some(long) { usize::MAX } else { 62_000 };
    let mut rest = bytes.clone();
    let mut answers = Vec::new();
    loop {
        let piece = rest.split_to(rest.len().min(longest));
        let end_of_stream = end && (rest.is_empty() || fault == Some(Fault::EndOnEveryChunk));
        let change = if fault == Some(Fault::BodyReplaced) {
            BodyChange::Body(piece)
        } else {
            BodyChange::Streamed(HttpBody {
                body: piece,
                end_of_stream,
            })
        };
        let response = CommonResponse {
            body_mutation: Some(BodyMutation { change: Some(change) }),
            ..CommonResponse::default()
        };
        answers.push(plain(wrap(CommonAnswer {
            response: Some(response),
        })));
        if rest.is_empty() {
            return answers;
        }
    }
}

/// A refusal.
pub(super) fn refuse(
    code: &str,
    status: i32,
    text: &str,
    reason: Option<&str>,
    fault: Option<Fault>,
) -> ProcessingResponse {
    let reason = match fault {
        Some(Fault::NoReason) => None,
        Some(Fault::WrongReason) => reason.map(|_| "rejected-saturated"),
        _ => reason,
    };
    let body = match fault {
        Some(Fault::BareErrorText) => text.to_owned(),
        Some(Fault::WrongCode) => format!("inference error: Internal - {text}"),
        _ => format!("inference error: {code} - {text}"),
    };
    plain(Answer::Immediate(ImmediateResponse {
        status: Some(HttpStatus {
            code: if fault == Some(Fault::WrongStatus) {
                502
            } else {
                status
            },
        }),
        headers: reason.map(|reason| HeaderMutation {
            set_headers: vec![set(DROPPED, reason, fault)],
            remove_headers: Vec::new(),
        }),
        body: body.into(),
    }))
}
