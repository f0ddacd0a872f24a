//! With fake nodes, where pods are ready at once.

mod claims;
mod faults;
mod forbidden_logs;
mod gateway;
mod groups;
mod leader;
mod lifecycle;
mod outage;
mod privilege;
mod rig;
mod rollouts;
mod schema;
mod undecodable;
mod usage;
