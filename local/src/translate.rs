//! From rendered objects to processes: programs, ports, environment, volumes and the router's discovery.

pub mod env;
pub mod plan;
pub mod pod;
pub mod ports;
pub mod program;
pub mod router;
pub mod volumes;
