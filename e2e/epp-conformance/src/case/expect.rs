//! What must come back, where it may differ between pickers by decision, and how two values are compared.

use std::collections::BTreeMap;

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::body::Body;

/// An expectation, or one per kind of picker with the reason.
#[derive(Clone, Debug)]
pub enum Expected<T> {
    /// For everybody.
    All(T),
    /// Upstream and llmd differ, and a word why.
    Variants {
        /// Why llmd differs.
        reason: String,
        /// Upstream's way.
        upstream: T,
        /// llmd's way.
        llmd: T,
    },
}

/// Whose way was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// llm-d-router's.
    Upstream,
    /// llmd's.
    Llmd,
}

/// Whose ways are accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Either of them, case by case.
    #[default]
    Any,
    /// Upstream's only.
    Upstream,
    /// llmd's only.
    Llmd,
}

impl<T: Default> Default for Expected<T> {
    fn default() -> Self {
        Self::All(T::default())
    }
}

impl<T> Expected<T> {
    /// The alternatives that a profile accepts.
    pub fn accepted(&self, profile: Profile) -> Vec<(Option<Variant>, &T)> {
        match self {
            Self::All(expected) => vec![(None, expected)],
            Self::Variants { upstream, llmd, .. } => [(Variant::Llmd, llmd), (Variant::Upstream, upstream)]
                .into_iter()
                .filter(|(variant, _)| match profile {
                    Profile::Any => true,
                    Profile::Upstream => *variant == Variant::Upstream,
                    Profile::Llmd => *variant == Variant::Llmd,
                })
                .map(|(variant, expected)| (Some(variant), expected))
                .collect(),
        }
    }

    /// Why the variants differ.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::All(_) => None,
            Self::Variants { reason, .. } => Some(reason),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Variants<T> {
    reason: String,
    upstream: T,
    llmd: T,
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Expected<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = Value::deserialize(deserializer)?;
        let variants = value.as_object_mut().and_then(|map| map.remove("variants"));
        match variants {
            Some(variants) => {
                let Variants {
                    reason,
                    upstream,
                    llmd,
                } = serde_json::from_value(variants).map_err(D::Error::custom)?;
                Ok(Self::Variants {
                    reason,
                    upstream,
                    llmd,
                })
            }
            None => serde_json::from_value(value)
                .map(Self::All)
                .map_err(D::Error::custom),
        }
    }
}

/// What must come for a request; routed anywhere unless something else is said.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Outcome {
    /// It is routed.
    pub route: Option<Route>,
    /// It is refused with a response.
    pub reject: Option<Reject>,
    /// The stream ends without an immediate response.
    pub stream: Option<StreamEnd>,
    /// Nothing comes for a second.
    pub silent: bool,
}

/// How a routed request looks.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Route {
    /// Where to.
    pub to: Option<Destination>,
    /// The body that comes back; the one that was sent unless given.
    pub body: Option<Body>,
    /// Headers that are set; `null`: not set.
    pub headers: BTreeMap<String, Option<Match>>,
    /// Headers that are removed.
    pub removed: Vec<String>,
    /// Received headers that come back as they were.
    pub echoed: Vec<String>,
    /// Values in the dynamic metadata, by namespace and key; `null`: not there.
    pub metadata: BTreeMap<String, BTreeMap<String, Value>>,
    /// The body is answered in exactly so many messages.
    pub messages: Option<usize>,
}

/// Where a request may go; names of members or of calls.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Destination {
    /// This member.
    Member(String),
    /// Made from others.
    Rule(DestinationRule),
}

/// A destination by rule.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum DestinationRule {
    /// One of these members.
    OneOf(Vec<String>),
    /// These members in this order.
    List(Vec<String>),
    /// These members, each once, in any order.
    Set(Vec<String>),
    /// As this call.
    SameAs(String),
    /// Not as this call.
    NotAs(String),
}

/// How a value is compared.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Match {
    /// Equal, after `${x}` is replaced.
    Is(String),
    /// By rule.
    Rule(MatchRule),
}

/// A comparison by rule.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum MatchRule {
    /// Begins so.
    Starts(String),
    /// Has all of these.
    Contains(Vec<String>),
    /// Has one of these.
    Either(Vec<String>),
    /// One of the members' addresses.
    Member(Vec<String>),
    /// base64 of this text.
    Base64(String),
    /// Not empty.
    Present(bool),
}

/// An immediate response.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reject {
    /// HTTP status.
    pub status: u16,
    /// Body.
    pub body: Option<Match>,
    /// Value of `x-llm-d-request-dropped-reason`; none when it must not be there.
    pub reason: Option<String>,
}

/// How a stream ends.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamEnd {
    /// gRPC code in words, such as `Ok` or `Unknown`.
    pub code: String,
    /// The message.
    pub message: Option<Match>,
}

/// What must come for a response; the same bytes unless something else is said.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ResponseOutcome {
    /// The body; what the engine sent unless given.
    pub body: Option<Body>,
    /// Headers that are set; `null`: not set.
    pub headers: BTreeMap<String, Option<Match>>,
    /// Body messages: at most so many bytes each and exactly so many messages.
    pub messages: Option<usize>,
    /// Values in the dynamic metadata of the last body answer; `null`: not there.
    pub metadata: BTreeMap<String, BTreeMap<String, Value>>,
    /// The picker had ended the stream after the request.
    pub skipped: bool,
    /// The head comes back and nothing of the body.
    pub held: bool,
    /// An immediate response instead.
    pub reject: Option<Reject>,
}

/// How a metric moved.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricCheck {
    /// Name of the sample, with `_count` or `_sum` for histograms.
    pub name: String,
    /// Labels that its series must have; `${x}` is replaced.
    #[serde(default)]
    pub labels: Map<String, Value>,
    /// By how much the sum of the series grew over the case.
    pub by: Option<f64>,
    /// By at least this much.
    pub by_at_least: Option<f64>,
    /// Their sum at the end.
    pub is: Option<f64>,
}
