//! Real nodes.

mod pods;
mod traces;
