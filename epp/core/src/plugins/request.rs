//! Plugins that look at a request before it is scheduled, one file per type.

pub mod agent_identity;
