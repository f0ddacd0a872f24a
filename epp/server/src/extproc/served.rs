//! Which endpoint has answered, if Envoy says so.

use llmd_openai::header;
use prost_types::Struct;
use prost_types::value::Kind;

use super::metadata::LB_NAMESPACE;
use super::proto::ProcessingRequest;

/// Attribute with the address that Envoy has connected to (`response_attributes` of the filter).
const UPSTREAM_ADDRESS: &str = "upstream.address";

/// The endpoint of a response: by the load balancer's metadata, as the Endpoint Picker Protocol has it, or by Envoy's
/// own attribute.
pub(super) fn endpoint(message: &ProcessingRequest) -> Option<String> {
    let metadata = message.metadata_context.as_ref();
    let lb = metadata.and_then(|metadata| metadata.filter_metadata.get(LB_NAMESPACE));
    let served = lb.and_then(|lb| text(lb, header::DESTINATION_SERVED));
    let connected = || {
        message
            .attributes
            .values()
            .find_map(|of| text(of, UPSTREAM_ADDRESS))
    };
    served.or_else(connected)
}

fn text(fields: &Struct, name: &str) -> Option<String> {
    match &fields.fields.get(name)?.kind {
        Some(Kind::StringValue(text)) if !text.is_empty() => Some(text.clone()),
        _ => None,
    }
}
