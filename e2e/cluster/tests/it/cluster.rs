//! Tiers A and B.

mod api;
mod control;
mod ending;
