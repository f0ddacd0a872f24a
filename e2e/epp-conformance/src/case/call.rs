//! One request as a proxy would pass it on, and the engine's response to it.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::body::Body;
use super::expect::{Expected, Outcome, ResponseOutcome};

/// A request, or several equal ones.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// Name, for steps and expectations that refer to it.
    #[serde(rename = "as")]
    pub name: Option<String>,
    /// Value of `:path`.
    #[serde(default = "completions")]
    pub path: String,
    /// Value of `:method`.
    #[serde(default = "post")]
    pub method: String,
    /// Further headers; `null` leaves out one that is sent otherwise, a list sends several. `${x}` is replaced.
    #[serde(default)]
    pub headers: Map<String, Value>,
    /// Send header values in the text field instead of the raw one.
    #[serde(default)]
    pub text_values: bool,
    /// `filter_metadata` by namespace, on every message of the request.
    #[serde(default)]
    pub metadata: Map<String, Value>,
    /// The subset hint: names of members or addresses.
    pub subset: Option<Vec<Value>>,
    /// The body; a small completion request unless given.
    pub body: Option<Body>,
    /// Where the body is cut: lengths of the chunks before the last. A chunk of 0 bytes is an empty message.
    #[serde(default)]
    pub cuts: Vec<usize>,
    /// How the request ends.
    #[serde(default)]
    pub end: End,
    /// Wait for this much before the body is sent.
    #[serde(default)]
    pub send: Send,
    /// So many requests, one after the other.
    #[serde(default = "one")]
    pub repeat: usize,
    /// Keep the streams open until `finish` or the end of the case.
    #[serde(default)]
    pub hold: bool,
    /// Drop the stream without a word after the answers.
    #[serde(default)]
    pub abort: bool,
    /// What must come.
    #[serde(default)]
    pub expect: Expected<Outcome>,
    /// How often each member was chosen over the repeats, as inclusive bounds.
    #[serde(default)]
    pub spread: Expected<Map<String, Value>>,
    /// The engine's response.
    pub response: Option<Response>,
}

/// How a request ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The last body message says so.
    #[default]
    Body,
    /// The head says so; there is no body.
    Headers,
    /// Trailers; no body message ends the stream.
    Trailers,
    /// The last body message says so, and another empty one after it.
    Twice,
    /// Not at all: the stream is dropped after the body.
    Never,
    /// The proxy half-closes in mid-body.
    HalfClose,
}

/// When the body is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Send {
    /// At once.
    #[default]
    AtOnce,
    /// After the answer to the head, as a proxy does with upgrade requests.
    AfterHead,
}

/// What the engine answers.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Response {
    /// Value of `:status`.
    #[serde(default = "ok")]
    pub status: u16,
    /// Further headers.
    #[serde(default)]
    pub headers: Map<String, Value>,
    /// Body messages.
    #[serde(default)]
    pub chunks: Vec<Body>,
    /// How it ends.
    #[serde(default)]
    pub end: ResponseEnd,
    /// Send each chunk only when the one before has come back.
    #[serde(default)]
    pub lockstep: bool,
    /// `filter_metadata` by namespace on the head.
    #[serde(default)]
    pub metadata: Map<String, Value>,
    /// What must come.
    #[serde(default)]
    pub expect: Expected<ResponseOutcome>,
}

/// How a response ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResponseEnd {
    /// The last chunk says so.
    #[default]
    Body,
    /// Trailers.
    Trailers,
    /// The head says so; there is no body.
    Headers,
    /// Not at all: the stream is dropped.
    Never,
}

fn completions() -> String {
    "/v1/completions".to_owned()
}

fn post() -> String {
    "POST".to_owned()
}

fn one() -> usize {
    1
}

fn ok() -> u16 {
    200
}
