//! Vertex AI's prediction service: OpenAI's JSON in a `google.api.HttpBody`. Field numbers:
//! `google.cloud.aiplatform.v1` and `google/api/httpbody.proto`.

use prost::Message;
use prost::bytes::Bytes;

use super::unreadable;
use crate::response::usage_of_document;
use crate::{BodyKind, Limits, RequestFacts, RequestScanner, ScanError, Usage};

/// `ChatCompletionsRequest`, `RawPredictRequest` and `StreamRawPredictRequest` alike.
#[derive(Clone, PartialEq, Message)]
struct PredictRequest {
    #[prost(message, optional, tag = "2")]
    http_body: Option<HttpBody>,
}

#[derive(Clone, PartialEq, Message)]
struct HttpBody {
    #[prost(bytes = "bytes", tag = "2")]
    data: Bytes,
}

/// Which method of the prediction service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Prediction {
    /// `ChatCompletions`: a chat.
    Chat,
    /// `RawPredict` and `StreamRawPredict`: a body of the responses API, as upstream reads them.
    Raw,
}

impl Prediction {
    /// How the JSON inside is read.
    pub const fn inner(self) -> BodyKind {
        match self {
            Self::Chat => BodyKind::ChatCompletions,
            Self::Raw => BodyKind::Responses,
        }
    }
}

/// The facts of a request. Its model cannot be replaced: lengths around the JSON would be wrong.
pub(super) fn request(method: Prediction, message: &[u8], limits: Limits) -> Result<RequestFacts, ScanError> {
    let request = PredictRequest::decode(message).map_err(unreadable)?;
    let body = request
        .http_body
        .ok_or(ScanError::Invalid("invalid gRPC request: it has no HttpBody"))?;
    let mut scanner = RequestScanner::new(method.inner(), limits);
    scanner.push(&body.data)?;
    let mut facts = scanner.finish()?;
    if let Some(model) = &mut facts.model {
        model.span = None;
    }
    Ok(facts)
}

/// Counts of a response message: an `HttpBody` with a document, or with lines of a stream.
pub(super) fn usage(message: &[u8], usage: &mut Usage) {
    let body = HttpBody::decode(message).unwrap_or_default();
    let lines = body.data.split(|byte| *byte == b'\n');
    let mut events = lines.filter_map(|line| line.strip_prefix(b"data:")).peekable();
    if events.peek().is_none() {
        usage_of_document(&body.data, usage);
    }
    for event in events {
        usage_of_document(event, usage);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrapped(json: &str) -> Vec<u8> {
        let request = PredictRequest {
            http_body: Some(HttpBody {
                data: json.to_owned().into(),
            }),
        };
        request.encode_to_vec()
    }

    #[test]
    fn the_json_inside_is_read_and_its_model_stays() {
        let chat = r#"{"model":"m","messages":[{"role":"user","content":"hi"}],"max_tokens":5}"#;
        let facts = request(Prediction::Chat, &wrapped(chat), Limits::default()).unwrap();
        let model = facts.model.unwrap();
        assert_eq!((&*model.value, model.span), ("m", None));
        assert_eq!(facts.max_output_tokens, Some(5));
        let raw = r#"{"model":"m","input":"hi"}"#;
        assert!(request(Prediction::Raw, &wrapped(raw), Limits::default()).is_ok());
        for wrong in [wrapped("{}"), wrapped("{"), Vec::new(), b"\xff".to_vec()] {
            assert!(request(Prediction::Chat, &wrong, Limits::default()).is_err());
        }
    }

    #[test]
    fn counts_come_from_documents_and_from_lines() {
        let read = |data: &str| {
            let message = HttpBody {
                data: data.to_owned().into(),
            };
            let mut counts = Usage::default();
            usage(&message.encode_to_vec(), &mut counts);
            (counts.prompt, counts.completion)
        };
        let counted = r#"{"usage":{"prompt_tokens":3,"completion_tokens":2}}"#;
        assert_eq!(read(counted), (3, 2));
        assert_eq!(
            read(&format!(
                "data: {{\"usage\":null}}\n\ndata: {counted}\n\ndata: [DONE]\n\n"
            )),
            (3, 2)
        );
        assert_eq!(read("no document"), (0, 0));
    }
}
