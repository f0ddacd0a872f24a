//! Every plugin, one file each.

pub mod admission;
pub mod datalayer;
pub mod decider;
pub(crate) mod endpoint_attribute;
pub mod filter;
pub mod flow;
pub mod parsing;
pub(crate) mod peer;
pub mod picker;
pub mod producer;
pub mod profile;
pub(crate) mod prompt;
pub mod request;
pub mod response;
pub mod saturation;
pub mod scorer;
pub mod screener;
pub mod session_affinity;

#[cfg(test)]
pub(crate) mod testing;
