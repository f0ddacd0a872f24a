//! Screeners: endpoints that are taken out for all profiles of a request.

pub mod disaggregatedset_rollout_screener;
