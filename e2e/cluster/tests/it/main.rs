//! The cluster base against itself: what it starts serves, and what it starts ends.
//!
//! The names of the modules say the tier (see CONTRIBUTING): `cluster` needs the built Kubernetes, `node` also root.
#![allow(clippy::unwrap_used, reason = "test code: a failed step is a failed test")]

mod cluster;
mod node;
mod registry;
