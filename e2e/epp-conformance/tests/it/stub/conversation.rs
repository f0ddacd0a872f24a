//! One stream of the stub.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use llmd_epp_conformance::wire::{
    Answer, CommonAnswer, CommonResponse, Event, HeaderMutation, HttpHeaders, Metadata, ProcessingRequest,
    ProcessingResponse, TrailersAnswer,
};
use prost_types::value::Kind;
use serde_json::value::RawValue;

use super::Fault;
use super::answer::{body, head, plain, refuse, set};

const OUTPUTS: [&str; 7] = [
    "x-gateway-destination-endpoint",
    "x-gateway-destination-endpoint-subset",
    "x-gateway-destination-endpoint-served",
    "x-prefiller-host-port",
    "x-encoder-hosts-ports",
    "x-data-parallel-host-port",
    "x-kv-cache-source-host-port",
];
const REWRITE: [&str; 2] = ["x-llm-d-model-name-rewrite", "x-gateway-model-name-rewrite"];

/// Code, status, text and reason of a refusal.
type Refusal = (&'static str, i32, String, Option<&'static str>);

pub(super) struct Conversation {
    endpoints: Arc<[SocketAddr]>,
    fault: Option<Fault>,
    headers: Vec<(String, String)>,
    subset: Option<Vec<String>>,
    body: Vec<u8>,
    is_routed: bool,
    passes: bool,
    /// Target and incoming model, when they differ.
    renamed: Option<(String, String)>,
    /// Response bytes that may be the begin of a name.
    carry: Vec<u8>,
    pub(super) is_over: bool,
}

impl Conversation {
    pub(super) fn new(endpoints: Arc<[SocketAddr]>, fault: Option<Fault>) -> Self {
        Self {
            endpoints,
            fault,
            headers: Vec::new(),
            subset: None,
            body: Vec::new(),
            is_routed: false,
            passes: false,
            renamed: None,
            carry: Vec::new(),
            is_over: false,
        }
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    pub(super) fn on_message(&mut self, message: ProcessingRequest) -> Vec<ProcessingResponse> {
        if let Some(metadata) = &message.metadata_context
            && let Some(subset) = subset(metadata)
        {
            self.subset = Some(subset);
        }
        match message.event {
            Some(Event::RequestHeaders(received)) => self.on_head(&received),
            Some(Event::RequestBody(chunk)) if self.passes => body(
                &chunk.body,
                chunk.end_of_stream,
                Answer::RequestBody,
                self.fault,
                Fault::LongChunks,
            ),
            Some(Event::RequestBody(chunk)) => {
                if self.is_routed {
                    let again = self.has(Fault::SecondEndAnswered);
                    return if again {
                        self.body_answers(true)
                    } else {
                        Vec::new()
                    };
                }
                self.body.extend_from_slice(&chunk.body);
                if chunk.end_of_stream {
                    self.route(true)
                } else {
                    Vec::new()
                }
            }
            Some(Event::RequestTrailers(_)) => {
                if self.has(Fault::RequestTrailersIgnored) {
                    return Vec::new();
                }
                let mut answers = if self.is_routed {
                    Vec::new()
                } else {
                    self.route(false)
                };
                if !self.is_over {
                    answers.push(plain(Answer::RequestTrailers(TrailersAnswer::default())));
                }
                answers
            }
            Some(Event::ResponseHeaders(_)) => vec![self.response_head()],
            Some(Event::ResponseBody(chunk)) => self.response_body(&chunk.body, chunk.end_of_stream),
            Some(Event::ResponseTrailers(_)) => {
                let early = self.has(Fault::ResponseEndBeforeTrailers);
                let mut answers = self.flush(early);
                if !self.has(Fault::ResponseTrailersUnanswered) {
                    answers.push(plain(Answer::ResponseTrailers(TrailersAnswer::default())));
                }
                answers
            }
            None => Vec::new(),
        }
    }

    fn on_head(&mut self, received: &HttpHeaders) -> Vec<ProcessingResponse> {
        let reads_text = !self.has(Fault::TextValuesUnread);
        let headers = received.headers.iter().flat_map(|map| &map.headers);
        self.headers = headers
            .map(|header| {
                let value = if reads_text {
                    header.bytes()
                } else {
                    &header.raw_value
                };
                (
                    header.key.to_ascii_lowercase(),
                    String::from_utf8_lossy(value).into_owned(),
                )
            })
            .collect();
        let upgrades = self.header("upgrade").is_some() && !self.has(Fault::UpgradeWaits);
        if received.end_of_stream || upgrades {
            self.passes = upgrades;
            self.is_routed = true;
            return match self.pick() {
                Ok(destination) => vec![self.head_answer(&destination, 0)],
                Err(refusal) => self.refuse(refusal),
            };
        }
        if self.has(Fault::HeadTooEarly) {
            let destination = self.endpoints[0].to_string();
            return vec![self.head_answer(&destination, 0)];
        }
        Vec::new()
    }

    fn route(&mut self, end: bool) -> Vec<ProcessingResponse> {
        self.is_routed = true;
        let routed = self.rewrite().and_then(|()| self.pick());
        let destination = match routed {
            Ok(destination) => destination,
            Err(refusal) => return self.refuse(refusal),
        };
        if self.has(Fault::BodyWrittenAnew)
            && let Ok(value) = serde_json::from_slice::<BTreeMap<String, serde_json::Value>>(&self.body)
        {
            self.body = serde_json::to_vec(&value).expect("JSON");
        }
        let answer = self.head_answer(&destination, self.body.len());
        let bodies = self.body_answers(end);
        if self.has(Fault::BodyBeforeHead) {
            return bodies.into_iter().chain([answer]).collect();
        }
        if self.has(Fault::HeadTooEarly) {
            return bodies;
        }
        [answer].into_iter().chain(bodies).collect()
    }

    fn body_answers(&self, end: bool) -> Vec<ProcessingResponse> {
        let mut bytes = Bytes::copy_from_slice(&self.body);
        if self.has(Fault::BodyLost) {
            bytes.truncate(self.body.len() / 2);
        }
        let end = end && !self.has(Fault::NoEnd);
        body(&bytes, end, Answer::RequestBody, self.fault, Fault::LongChunks)
    }

    fn head_answer(&self, destination: &str, length: usize) -> ProcessingResponse {
        let mut set_headers = Vec::new();
        let length = match self.fault {
            Some(Fault::WrongContentLength) => length + 1,
            Some(Fault::NoContentLength) => 0,
            Some(Fault::ContentLengthWithoutBody) => length.max(1),
            _ => length,
        };
        if length > 0 {
            set_headers.push(set("Content-Length", &length.to_string(), self.fault));
        }
        if self.header("x-request-id").is_none() && !self.has(Fault::NoRequestId) {
            set_headers.push(set("x-request-id", "made", self.fault));
        }
        if self.has(Fault::InputsEchoed) {
            let inputs = self
                .headers
                .iter()
                .filter(|(name, _)| name.starts_with("x-llm-d-"));
            set_headers.extend(inputs.map(|(name, value)| set(name, value, self.fault)));
        }
        if self.has(Fault::HeaderInvented) {
            set_headers.push(set("x-picked-by", "stub", self.fault));
        }
        let sent = |name: &&&str| self.header(name).is_some();
        let removed = OUTPUTS[1..]
            .iter()
            .filter(sent)
            .map(|name| (*name).to_owned())
            .collect();
        let removed = if self.has(Fault::RoutingHeadersKept) {
            Vec::new()
        } else {
            removed
        };
        head(destination, set_headers, removed, self.fault)
    }

    fn refuse(&mut self, (code, status, text, reason): Refusal) -> Vec<ProcessingResponse> {
        self.is_over = true;
        let mut answers = vec![refuse(code, status, &text, reason, self.fault)];
        if self.has(Fault::AnswerAfterRefusal) {
            let destination = self.endpoints[0].to_string();
            answers.push(self.head_answer(&destination, 0));
        }
        answers
    }

    fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(key, _)| key == name)?;
        Some(value)
    }

    /// Reads the body and puts the target's name where the client's is.
    fn rewrite(&mut self) -> Result<(), Refusal> {
        let bad = |text: String| ("BadRequest", 400, text, None);
        let paths = [":path", "x-original-path", "x-forwarded-path"];
        let path = paths
            .iter()
            .find_map(|name| self.header(name))
            .unwrap_or("/v1/completions");
        let path = if self.has(Fault::QueryIsPath) {
            path
        } else {
            path.split('?').next().unwrap_or_default()
        };
        let path = path.trim_matches('/');
        let is_chat = path.ends_with("chat/completions");
        if !path.ends_with("completions") {
            return if path.contains("completions") {
                Err(bad(format!(
                    "no parser registered matching path suffix for: {path}"
                )))
            } else {
                Ok(())
            };
        }
        let text = String::from_utf8_lossy(&self.body).into_owned();
        let fields = match serde_json::from_str::<BTreeMap<String, &RawValue>>(&text) {
            Ok(fields) => fields,
            Err(_) if self.has(Fault::InvalidJsonAccepted) => return Ok(()),
            Err(error) => return Err(bad(format!("error unmarshaling request bodyMap: {error}"))),
        };
        let model = fields
            .get("model")
            .map(|raw| raw.get())
            .filter(|raw| *raw != "\"\"");
        let Some(model) = model else {
            return if self.has(Fault::MissingModelAccepted) {
                Ok(())
            } else {
                Err(bad("model not found in request body".to_owned()))
            };
        };
        if is_chat && !fields.contains_key("messages") {
            let text = "invalid chat completions request: must have valid messages field";
            return Err(bad(text.to_owned()));
        }
        if !is_chat && !fields.contains_key("prompt") {
            return Err(bad(
                "invalid completions request: must have prompt field".to_owned()
            ));
        }
        let mut names = REWRITE;
        if self.has(Fault::AliasWins) {
            names.reverse();
        }
        let target = names.iter().find_map(|name| self.header(name)).map(str::to_owned);
        let incoming = model.trim_matches('"').to_owned();
        if let Some(target) = target.filter(|target| *target != incoming) {
            let mut at = model.as_ptr() as usize - text.as_ptr() as usize;
            if self.has(Fault::InnerModelRewritten) {
                at = text
                    .find("\"model\":")
                    .map_or(at, |first| first + "\"model\":".len());
            }
            let end = at + text[at + 1..].find('"').expect("a closing quote") + 2;
            self.body = format!("{}\"{target}\"{}", &text[..at], &text[end..]).into_bytes();
            self.renamed = Some((target, incoming));
        }
        Ok(())
    }

    fn pick(&self) -> Result<String, Refusal> {
        match self.fault {
            Some(Fault::DestinationByName) => return Ok("a".to_owned()),
            Some(Fault::DestinationOutsideThePool) => return Ok("192.0.2.1:80".to_owned()),
            _ => {}
        }
        let is_allowed = |endpoint: &&SocketAddr| match &self.subset {
            None => true,
            Some(_) if self.has(Fault::SubsetIgnored) => true,
            Some(_) if self.has(Fault::SubsetOfBodilessIgnored) && self.body.is_empty() => true,
            Some(entries) if entries.is_empty() => self.has(Fault::EmptySubsetIsAll),
            Some(entries) => entries.iter().any(|entry| {
                if self.has(Fault::SubsetComparesPorts) {
                    *entry == endpoint.to_string()
                } else {
                    let address = entry
                        .rsplit_once(':')
                        .map_or(entry.as_str(), |(address, _)| address);
                    address == endpoint.ip().to_string()
                }
            }),
        };
        let endpoint = self.endpoints.iter().find(is_allowed);
        endpoint.map(ToString::to_string).ok_or_else(|| {
            let text = "failed to find endpoint candidates for serving the request";
            (
                "ServiceUnavailable",
                503,
                text.to_owned(),
                Some("rejected-no-endpoints"),
            )
        })
    }

    fn response_head(&self) -> ProcessingResponse {
        let marker =
            (!self.has(Fault::NoMarker)).then(|| set("x-went-into-resp-headers", "true", self.fault));
        let response = CommonResponse {
            header_mutation: Some(HeaderMutation {
                set_headers: marker.into_iter().collect(),
                remove_headers: Vec::new(),
            }),
            clear_route_cache: self.has(Fault::ClearRouteCacheInResponse),
            ..CommonResponse::default()
        };
        plain(Answer::ResponseHeaders(CommonAnswer {
            response: Some(response),
        }))
    }

    fn response_body(&mut self, chunk: &[u8], end: bool) -> Vec<ProcessingResponse> {
        self.carry.extend_from_slice(chunk);
        if end {
            return self.flush(true);
        }
        if self.has(Fault::ResponseHeld)
            || (self.renamed.is_some() && !self.has(Fault::ModelNotRestoredOverMessages))
        {
            return Vec::new();
        }
        self.flush(false)
    }

    fn flush(&mut self, end: bool) -> Vec<ProcessingResponse> {
        let mut text = String::from_utf8(std::mem::take(&mut self.carry)).expect("text");
        if let Some((target, incoming)) = &self.renamed
            && !self.has(Fault::ModelNotRestored)
        {
            let close = if self.has(Fault::OtherModelsRestored) {
                ""
            } else {
                "\""
            };
            for blank in ["", " "] {
                let needle = format!("\"model\":{blank}\"{target}{close}");
                text = text.replace(&needle, &format!("\"model\":{blank}\"{incoming}{close}"));
            }
        }
        if text.is_empty() && !end {
            return Vec::new();
        }
        let end = end && !self.has(Fault::ResponseWithoutEnd);
        let long = Fault::ResponseLongChunks;
        body(&text.into(), end, Answer::ResponseBody, self.fault, long)
    }
}

fn subset(metadata: &Metadata) -> Option<Vec<String>> {
    let hint = metadata.filter_metadata.get("envoy.lb.subset_hint")?;
    match &hint.fields.get("x-gateway-destination-endpoint-subset")?.kind {
        Some(Kind::ListValue(list)) => Some(
            list.values
                .iter()
                .filter_map(|value| match &value.kind {
                    Some(Kind::StringValue(text)) => Some(text.clone()),
                    _ => None,
                })
                .collect(),
        ),
        _ => None,
    }
}
