//! `EndpointPickerConfig`: what upstream's configuration files say, decoded strictly.
//!
//! Text → [`EndpointPickerConfig`] (this module: shape, groups and versions, deprecated fields) →
//! [`assemble`]: plugin instances, defaults, checks, a running [`Scheduler`](crate::Scheduler).

mod assemble;
mod diff;
mod duration;
mod error;
pub mod explain;
mod graph;
mod heritage;
mod portable;
mod quantity;
mod schema;

pub use assemble::{
    Assembly, BuildEnv, DataLayerPlan, ParserPlan, SourcePlan, assemble, validate, validate_for,
};
pub use duration::{GoDuration, ParseDurationError, parse_duration};
pub use error::ConfigError;
pub use heritage::Heritage;
pub use quantity::{ParseQuantityError, Quantity};
pub use schema::{
    DataLayer, Decoded, EndpointPickerConfig, Extractors, FlowControl, PluginRef, PluginSpec, PriorityBand,
    ProfilePlugin, RequestHandler, SchedulingProfile, Source,
};

#[cfg(test)]
mod tests;
