//! What was sent and what came back, and how to ask about it.

use bytes::Bytes;
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use tonic::Code;

use crate::case::{End, ResponseEnd};
use crate::wire::{
    Answer, BodyChange, CommonAnswer, CommonResponse, HeaderMutation, HttpBody, ImmediateResponse,
    ProcessingResponse,
};

/// Namespace of the load balancer's dynamic metadata.
pub const LB: &str = "envoy.lb";
/// Where to, as header and as metadata key.
pub const DESTINATION: &str = "x-gateway-destination-endpoint";
/// Why a request was dropped.
pub const DROPPED: &str = "x-llm-d-request-dropped-reason";

/// How waiting for answers came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// All answers that belong to the direction came.
    Complete,
    /// The picker ended the stream.
    Ended(Code, String),
    /// Nothing more came in time.
    Silence,
}

/// The request direction.
#[derive(Clone, Debug)]
pub struct RequestTranscript {
    /// Headers as they were sent.
    pub headers: Vec<(String, String)>,
    /// Body as it was sent.
    pub body: Bytes,
    /// How the request ended.
    pub end: End,
    /// Answers in order.
    pub answers: Vec<ProcessingResponse>,
    /// How it ended.
    pub stop: Stop,
}

/// The response direction.
#[derive(Clone, Debug)]
pub struct ResponseTranscript {
    /// Headers as they were sent.
    pub headers: Vec<(String, String)>,
    /// Body as it was sent.
    pub body: Bytes,
    /// How the response ended.
    pub end: ResponseEnd,
    /// Answers in order.
    pub answers: Vec<ProcessingResponse>,
    /// How it ended.
    pub stop: Stop,
}

/// The changes in a head's or body's answer.
pub fn common(answer: &CommonAnswer) -> Option<&CommonResponse> {
    answer.response.as_ref()
}

/// The chunk in a body's answer.
pub fn chunk(answer: &CommonAnswer) -> Option<&HttpBody> {
    match &common(answer)?.body_mutation.as_ref()?.change {
        Some(BodyChange::Streamed(chunk)) => Some(chunk),
        _ => None,
    }
}

/// The headers that a mutation sets, names in lower case.
pub fn set_headers(mutation: Option<&HeaderMutation>) -> Vec<(String, String)> {
    mutation
        .into_iter()
        .flat_map(|mutation| &mutation.set_headers)
        .filter_map(|option| option.header.as_ref())
        .map(|header| {
            let value = String::from_utf8_lossy(header.bytes()).into_owned();
            (header.key.to_ascii_lowercase(), value)
        })
        .collect()
}

/// The first value of a header.
pub fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let (_, value) = headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?;
    Some(value)
}

impl RequestTranscript {
    /// The answer to the head.
    pub fn head(&self) -> Option<&ProcessingResponse> {
        self.answers
            .iter()
            .find(|answer| matches!(answer.answer, Some(Answer::RequestHeaders(_))))
    }

    /// The header changes in the answer to the head.
    pub fn mutation(&self) -> Option<&HeaderMutation> {
        match &self.head()?.answer {
            Some(Answer::RequestHeaders(answer)) => common(answer)?.header_mutation.as_ref(),
            _ => None,
        }
    }

    /// The headers that are set.
    pub fn set_headers(&self) -> Vec<(String, String)> {
        set_headers(self.mutation())
    }

    /// Where the request goes.
    pub fn destination(&self) -> Option<String> {
        find(&self.set_headers(), DESTINATION).map(str::to_owned)
    }

    /// The body chunks.
    pub fn chunks(&self) -> Vec<&HttpBody> {
        let bodies = self.answers.iter().filter_map(|answer| match &answer.answer {
            Some(Answer::RequestBody(answer)) => chunk(answer),
            _ => None,
        });
        bodies.collect()
    }

    /// The response instead of the engine's.
    pub fn immediate(&self) -> Option<&ImmediateResponse> {
        immediate(&self.answers)
    }
}

impl ResponseTranscript {
    /// The headers that are set.
    pub fn set_headers(&self) -> Vec<(String, String)> {
        let head = self.answers.iter().find_map(|answer| match &answer.answer {
            Some(Answer::ResponseHeaders(answer)) => common(answer)?.header_mutation.as_ref(),
            _ => None,
        });
        set_headers(head)
    }

    /// The body chunks.
    pub fn chunks(&self) -> Vec<&HttpBody> {
        let bodies = self.answers.iter().filter_map(|answer| match &answer.answer {
            Some(Answer::ResponseBody(answer)) => chunk(answer),
            _ => None,
        });
        bodies.collect()
    }

    /// The dynamic metadata of the answers, the last one first.
    pub fn metadata(&self, namespace: &str, key: &str) -> Option<&Value> {
        self.answers
            .iter()
            .rev()
            .find_map(|answer| metadata(answer, namespace, key))
    }

    /// An immediate response in mid-response.
    pub fn immediate(&self) -> Option<&ImmediateResponse> {
        immediate(&self.answers)
    }
}

fn immediate(answers: &[ProcessingResponse]) -> Option<&ImmediateResponse> {
    answers.iter().find_map(|answer| match &answer.answer {
        Some(Answer::Immediate(response)) => Some(response),
        _ => None,
    })
}

/// A value in the dynamic metadata of an answer.
pub fn metadata<'a>(answer: &'a ProcessingResponse, namespace: &str, key: &str) -> Option<&'a Value> {
    match &answer.dynamic_metadata.as_ref()?.fields.get(namespace)?.kind {
        Some(Kind::StructValue(fields)) => fields.fields.get(key),
        _ => None,
    }
}

/// JSON as protobuf's `Struct`.
pub fn to_struct(map: &serde_json::Map<String, serde_json::Value>) -> Struct {
    Struct {
        fields: map
            .iter()
            .map(|(key, value)| (key.clone(), to_value(value)))
            .collect(),
    }
}

fn to_value(json: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    let kind = match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(flag) => Kind::BoolValue(*flag),
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Json::String(text) => Kind::StringValue(text.clone()),
        Json::Array(items) => Kind::ListValue(prost_types::ListValue {
            values: items.iter().map(to_value).collect(),
        }),
        Json::Object(map) => Kind::StructValue(to_struct(map)),
    };
    Value { kind: Some(kind) }
}

/// Protobuf's `Value` as JSON.
pub fn to_json(value: &Value) -> serde_json::Value {
    use serde_json::Value as Json;
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Json::Null,
        Some(Kind::BoolValue(flag)) => Json::Bool(*flag),
        Some(Kind::NumberValue(number)) => serde_json::json!(number),
        Some(Kind::StringValue(text)) => Json::String(text.clone()),
        Some(Kind::ListValue(list)) => list.values.iter().map(to_json).collect(),
        Some(Kind::StructValue(fields)) => fields
            .fields
            .iter()
            .map(|(key, value)| (key.clone(), to_json(value)))
            .collect(),
    }
}
