//! Plugins that follow a response, one file per type.

pub mod destination_endpoint_served_verifier;
pub mod request_attribute_reporter;
