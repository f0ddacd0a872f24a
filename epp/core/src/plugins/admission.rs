//! Admitters: requests that are refused before their profiles run.

pub mod latency_slo_admitter;
pub mod probabilistic_admitter;
