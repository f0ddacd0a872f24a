//! Drives one request and its response over a stream and writes down what happens.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::case::{Body, Built, Call, End, Response, ResponseEnd, Send, substitute};
use crate::stream::{Next, Stream};
use crate::transcript::{RequestTranscript, ResponseTranscript, Stop, chunk, to_struct};
use crate::wire::{
    Answer, Event, HeaderMap, HeaderValue, HttpBody, HttpHeaders, HttpTrailers, Metadata, ProcessingResponse,
};

/// Looks up `${name}`.
pub type Resolve<'a> = &'a (dyn Fn(&str) -> Option<String> + std::marker::Send + Sync);

const SUBSET_NAMESPACE: &str = "envoy.lb.subset_hint";
const SUBSET_KEY: &str = "x-gateway-destination-endpoint-subset";
/// How long after a refusal nothing else may come.
const AFTERMATH: Duration = Duration::from_secs(2);

/// Sends a request and collects what comes until the request is answered.
pub async fn request(
    stream: &mut Stream,
    call: &Call,
    resolve: Resolve<'_>,
    patience: Duration,
) -> anyhow::Result<RequestTranscript> {
    let mut headers = vec![
        (":method".to_owned(), call.method.clone()),
        (":path".to_owned(), call.path.clone()),
        (":authority".to_owned(), "models.example".to_owned()),
        (":scheme".to_owned(), "http".to_owned()),
        ("content-type".to_owned(), "application/json".to_owned()),
        ("x-request-id".to_owned(), "conformance-1".to_owned()),
    ];
    extend_headers(&mut headers, &call.headers, resolve)?;
    let has_body = call.end != End::Headers;
    let body = match &call.body {
        _ if !has_body => Bytes::new(),
        Some(body) => body.bytes(resolve)?,
        None => default_body().bytes(resolve)?,
    };
    let metadata = request_metadata(call, resolve)?;
    let mut transcript = RequestTranscript {
        headers,
        body,
        end: call.end,
        answers: Vec::new(),
        stop: Stop::Silence,
    };
    let head = HttpHeaders {
        headers: Some(header_map(&transcript.headers, call.text_values)),
        end_of_stream: !has_body,
    };
    stream.send(Event::RequestHeaders(head), metadata.clone()).await;
    if has_body {
        if call.send == Send::AfterHead {
            let is_answered = |answers: &[ProcessingResponse]| !answers.is_empty();
            transcript.stop = collect(stream, &mut transcript.answers, patience, is_answered).await;
            if transcript.stop != Stop::Complete {
                return Ok(transcript);
            }
        }
        send_body(stream, &transcript.body, call, metadata.as_ref()).await;
    }
    match call.end {
        End::Trailers => {
            let trailers = HttpTrailers {
                trailers: Some(header_map(&[("x-checksum".to_owned(), "1".to_owned())], false)),
            };
            stream.send(Event::RequestTrailers(trailers), metadata).await;
        }
        End::HalfClose => stream.half_close(),
        End::Body | End::Headers | End::Twice | End::Never => {}
    }
    let is_complete = move |answers: &[ProcessingResponse]| request_is_answered(answers, call.end);
    transcript.stop = collect(stream, &mut transcript.answers, patience, is_complete).await;
    if transcript.immediate().is_some() {
        // Whatever follows a refusal is one answer too many; the end of the stream is all that may come.
        stream.half_close();
        transcript.stop = collect(stream, &mut transcript.answers, AFTERMATH, |_| false).await;
    }
    Ok(transcript)
}

/// Sends the engine's response and collects the answers to it.
pub async fn response(
    stream: &mut Stream,
    response: &Response,
    resolve: Resolve<'_>,
    patience: Duration,
) -> anyhow::Result<ResponseTranscript> {
    let mut headers = vec![
        (":status".to_owned(), response.status.to_string()),
        ("content-type".to_owned(), "application/json".to_owned()),
    ];
    extend_headers(&mut headers, &response.headers, resolve)?;
    let chunks = response
        .chunks
        .iter()
        .map(|chunk| chunk.bytes(resolve))
        .collect::<anyhow::Result<Vec<Bytes>>>()?;
    let mut transcript = ResponseTranscript {
        headers,
        body: chunks.concat().into(),
        end: response.end,
        answers: Vec::new(),
        stop: Stop::Silence,
    };
    let head = HttpHeaders {
        headers: Some(header_map(&transcript.headers, false)),
        end_of_stream: response.end == ResponseEnd::Headers,
    };
    let metadata = filter_metadata(&resolved(&response.metadata, resolve)?);
    stream.send(Event::ResponseHeaders(head), metadata).await;
    let (mut sent, last) = (0, chunks.len().saturating_sub(1));
    for (index, body) in chunks.into_iter().enumerate() {
        sent += body.len();
        let end_of_stream = response.end == ResponseEnd::Body && index == last;
        let chunk = HttpBody { body, end_of_stream };
        stream.send(Event::ResponseBody(chunk), None).await;
        if response.lockstep {
            let is_back = |answers: &[ProcessingResponse]| response_bytes(answers) >= sent;
            let stop = collect(stream, &mut transcript.answers, patience, is_back).await;
            if stop != Stop::Complete {
                transcript.stop = stop;
                return Ok(transcript);
            }
        }
    }
    match response.end {
        ResponseEnd::Trailers => {
            let trailers = HttpTrailers {
                trailers: Some(header_map(&[("grpc-status".to_owned(), "0".to_owned())], false)),
            };
            stream.send(Event::ResponseTrailers(trailers), None).await;
        }
        ResponseEnd::Body if response.chunks.is_empty() => {
            let end_of_stream = true;
            let chunk = HttpBody {
                body: Bytes::new(),
                end_of_stream,
            };
            stream.send(Event::ResponseBody(chunk), None).await;
        }
        ResponseEnd::Body | ResponseEnd::Headers | ResponseEnd::Never => {}
    }
    let is_complete = move |answers: &[ProcessingResponse]| response_is_answered(answers, response.end, sent);
    transcript.stop = collect(stream, &mut transcript.answers, patience, is_complete).await;
    Ok(transcript)
}

/// Half-closes and collects what is left until the stream ends.
pub async fn close(stream: &mut Stream, patience: Duration) -> (Vec<ProcessingResponse>, Stop) {
    stream.half_close();
    let mut answers = Vec::new();
    let stop = collect(stream, &mut answers, patience, |_| false).await;
    (answers, stop)
}

async fn collect(
    stream: &mut Stream,
    answers: &mut Vec<ProcessingResponse>,
    patience: Duration,
    is_complete: impl Fn(&[ProcessingResponse]) -> bool,
) -> Stop {
    loop {
        if is_complete(answers) {
            return Stop::Complete;
        }
        match stream.next(patience).await {
            Next::Answer(answer) => {
                let is_immediate = matches!(answer.answer, Some(Answer::Immediate(_)));
                answers.push(*answer);
                if is_immediate {
                    return Stop::Complete;
                }
            }
            Next::End(code, message) => return Stop::Ended(code, message),
            Next::Silence => return Stop::Silence,
        }
    }
}

fn request_is_answered(answers: &[ProcessingResponse], end: End) -> bool {
    let is_head = |answer: &ProcessingResponse| matches!(answer.answer, Some(Answer::RequestHeaders(_)));
    let ends_body = |answer: &ProcessingResponse| match &answer.answer {
        Some(Answer::RequestBody(answer)) => chunk(answer).is_some_and(|chunk| chunk.end_of_stream),
        _ => false,
    };
    let is_trailers = |answer: &ProcessingResponse| matches!(answer.answer, Some(Answer::RequestTrailers(_)));
    match end {
        End::Headers => answers.iter().any(is_head),
        End::Body | End::Twice => answers.iter().any(is_head) && answers.iter().any(ends_body),
        End::Trailers => answers.iter().any(is_trailers),
        End::Never | End::HalfClose => false,
    }
}

fn response_is_answered(answers: &[ProcessingResponse], end: ResponseEnd, sent: usize) -> bool {
    let is_head = |answer: &ProcessingResponse| matches!(answer.answer, Some(Answer::ResponseHeaders(_)));
    let ends_body = |answer: &ProcessingResponse| match &answer.answer {
        Some(Answer::ResponseBody(answer)) => chunk(answer).is_some_and(|chunk| chunk.end_of_stream),
        _ => false,
    };
    let is_trailers =
        |answer: &ProcessingResponse| matches!(answer.answer, Some(Answer::ResponseTrailers(_)));
    match end {
        ResponseEnd::Headers => answers.iter().any(is_head),
        ResponseEnd::Body => answers.iter().any(ends_body),
        ResponseEnd::Trailers => answers.iter().any(is_trailers),
        ResponseEnd::Never => answers.iter().any(is_head) && response_bytes(answers) >= sent,
    }
}

fn response_bytes(answers: &[ProcessingResponse]) -> usize {
    let chunks = answers.iter().filter_map(|answer| match &answer.answer {
        Some(Answer::ResponseBody(answer)) => chunk(answer),
        _ => None,
    });
    chunks.map(|chunk| chunk.body.len()).sum()
}

async fn send_body(stream: &mut Stream, body: &Bytes, call: &Call, metadata: Option<&Metadata>) {
    let mut rest = body.clone();
    let mut pieces: Vec<Bytes> = Vec::new();
    for cut in &call.cuts {
        pieces.push(rest.split_to((*cut).min(rest.len())));
    }
    pieces.push(rest);
    let last = pieces.len() - 1;
    for (index, body) in pieces.into_iter().enumerate() {
        let end_of_stream = index == last && matches!(call.end, End::Body | End::Twice);
        let chunk = HttpBody { body, end_of_stream };
        stream.send(Event::RequestBody(chunk), metadata.cloned()).await;
    }
    if call.end == End::Twice {
        let chunk = HttpBody {
            body: Bytes::new(),
            end_of_stream: true,
        };
        stream.send(Event::RequestBody(chunk), metadata.cloned()).await;
    }
}

/// Keys in alphabetical order and no blanks: also a picker that writes bodies anew sends these bytes.
fn default_body() -> Body {
    Body::Built(Box::new(Built::Json(
        json!({"max_tokens": 4, "model": "m", "prompt": "hello", "temperature": 0}),
    )))
}

fn extend_headers(
    headers: &mut Vec<(String, String)>,
    further: &Map<String, Value>,
    resolve: Resolve<'_>,
) -> anyhow::Result<()> {
    for (name, value) in further {
        headers.retain(|(other, _)| other != name);
        let values = match value {
            Value::Null => continue,
            Value::Array(values) => values.clone(),
            single => vec![single.clone()],
        };
        for value in values {
            let value = match value {
                Value::String(text) => substitute(&text, resolve)?,
                Value::Number(number) => number.to_string(),
                Value::Bool(flag) => flag.to_string(),
                other => bail!("header {name} cannot be {other}"),
            };
            headers.push((name.clone(), value));
        }
    }
    Ok(())
}

fn header_map(headers: &[(String, String)], text_values: bool) -> HeaderMap {
    let header = |(key, value): &(String, String)| HeaderValue {
        key: key.clone(),
        value: if text_values { value.clone() } else { String::new() },
        raw_value: if text_values {
            Bytes::new()
        } else {
            value.clone().into()
        },
    };
    HeaderMap {
        headers: headers.iter().map(header).collect(),
    }
}

fn request_metadata(call: &Call, resolve: Resolve<'_>) -> anyhow::Result<Option<Metadata>> {
    let mut metadata = resolved(&call.metadata, resolve)?;
    if let Some(subset) = &call.subset {
        let entries = subset.iter().map(|entry| match entry {
            Value::String(name) => match resolve(name) {
                Some(address) => Ok(Value::String(address)),
                None => substitute(name, resolve).map(Value::String),
            },
            other => Ok(other.clone()),
        });
        let entries = entries.collect::<anyhow::Result<Vec<Value>>>()?;
        metadata.insert(SUBSET_NAMESPACE.to_owned(), json!({ SUBSET_KEY: entries }));
    }
    Ok(filter_metadata(&metadata))
}

fn filter_metadata(namespaces: &Map<String, Value>) -> Option<Metadata> {
    if namespaces.is_empty() {
        return None;
    }
    let namespaces = namespaces
        .iter()
        .filter_map(|(name, fields)| Some((name.clone(), to_struct(fields.as_object()?))));
    Some(Metadata {
        filter_metadata: namespaces.collect(),
    })
}

/// The map with `${name}` replaced in its text.
fn resolved(map: &Map<String, Value>, resolve: Resolve<'_>) -> anyhow::Result<Map<String, Value>> {
    let text = substitute(&serde_json::to_string(map)?, resolve)?;
    serde_json::from_str(&text).context("a resolved map")
}
