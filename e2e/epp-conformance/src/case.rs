//! What a case is: the data of the files in `cases/`.
//!
//! A file is a group with a shared set-up; a case may replace parts of it. Cases with an equal set-up share a running
//! picker unless they say `fresh: true`.

mod body;
mod call;
mod expect;
mod load;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

pub(crate) use body::substitute;
pub use body::{Body, Built};
pub use call::{Call, End, Response, ResponseEnd, Send};
pub use expect::{
    Destination, DestinationRule, Expected, Match, MatchRule, MetricCheck, Outcome, Profile, Reject,
    ResponseOutcome, Route, StreamEnd, Variant,
};
pub use load::{Selected, load, selected};

/// A file of cases.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Name; the first part of the names of its cases.
    pub group: String,
    /// What holds for cases that do not say otherwise.
    #[serde(flatten)]
    pub setup: SetupPart,
    /// The cases.
    pub cases: Vec<Case>,
}

/// Parts of a set-up; a case's part replaces the group's.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct SetupPart {
    /// The `EndpointPickerConfig`, without discovery.
    pub config: Option<Value>,
    /// Short for a configuration with one profile: plugin types, or objects with `type`, `name`, `parameters`, `weight`.
    pub profile: Option<Vec<Value>>,
    /// Further entries of `plugins` beside those of `profile`.
    pub plugins: Option<Vec<Value>>,
    /// Flags of the picker.
    pub flags: Option<Vec<String>>,
    /// The endpoints by name, in the order of the endpoints file.
    pub pool: Option<Map<String, Value>>,
}

/// An endpoint and what its engine shows.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Member {
    /// Requests waiting.
    pub waiting: f64,
    /// Requests running.
    pub running: f64,
    /// Part of the KV cache in use, 0 to 1.
    pub kv: f64,
    /// Running `LoRA` adapters.
    pub lora: Vec<String>,
    /// Waiting `LoRA` adapters.
    pub lora_waiting: Vec<String>,
    /// Most adapters at a time; 4 when there are adapters and none is given.
    pub lora_max: Option<u32>,
    /// Tokens per block and blocks of the KV cache.
    pub cache: Option<(u32, u32)>,
    /// Models of `/v1/models`.
    pub models: Vec<String>,
    /// A whole metrics page instead of the one made from the fields.
    pub page: Option<String>,
    /// Labels of the endpoint.
    pub labels: BTreeMap<String, String>,
    /// The engine answers 404 to scrapes.
    pub unscrapable: bool,
}

/// One case.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Name, unique in its group.
    pub name: String,
    /// The rows of the reference that it shows, as `sheet#section/row`.
    pub sheet: Vec<String>,
    /// Parts of the set-up that differ from the group's.
    #[serde(flatten)]
    pub setup: SetupPart,
    /// A picker of its own: the case depends on what was learned, or on nothing having been.
    #[serde(default)]
    pub fresh: bool,
    /// What happens at the start, where that is the point.
    pub start: Option<Expected<Start>>,
    /// Short for `steps` with a single call.
    pub call: Option<Call>,
    /// What is done, in order.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// How counters and gauges moved over the case.
    #[serde(default)]
    pub metrics: Vec<Expected<MetricCheck>>,
}

/// What a picker does with its configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Start {
    /// It serves.
    Serves,
    /// It ends with a failure and says all of these texts.
    Refuses(Vec<String>),
    /// It serves, and its log has all of these texts.
    Warns(Vec<String>),
}

/// One step of a case.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    /// One or more requests.
    Call(Box<Call>),
    /// Engines show something else from now on; waits until the picker has read it.
    Set(BTreeMap<String, Value>),
    /// The endpoints file lists these members from now on; waits until the picker counts them.
    Members(Vec<String>),
    /// A held call goes on: its response is sent, or its stream is closed.
    Finish(String),
}

impl Case {
    /// The steps, with the single call as one.
    pub fn all_steps(&self) -> Vec<Step> {
        let single = self.call.iter().map(|call| Step::Call(Box::new(call.clone())));
        single.chain(self.steps.iter().cloned()).collect()
    }
}
