//! Rendering as its callers see it: goldens, the guides' values, every field of the schema, every mistake.

#![allow(clippy::unwrap_used, clippy::panic)] // a panic is how a test fails, in its helpers too

mod compared;
mod connectors;
mod examples;
mod fields;
mod golden;
mod guide;
mod guide_encode;
mod guide_pd;
mod guide_rows;
mod guide_sglang;
mod guide_tiered;
mod guide_wide_ep;
mod hostile;
mod installation;
mod invariants;
mod mistakes;
mod properties;
mod releases;
mod storage;
mod support;
