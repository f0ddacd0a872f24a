//! Envoy's side of the protocol, message by message.

#![allow(clippy::float_cmp, reason = "counters hold small integers")]
#![allow(clippy::panic, reason = "a failed expectation of a test")]

mod lifetime;
mod pairs;
mod plugins;
mod refusals;
mod requests;
mod responses;
mod shadow;
