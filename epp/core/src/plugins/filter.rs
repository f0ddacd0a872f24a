//! Filters: which endpoints may serve a request.

pub mod by_label;
pub mod decode_filter;
pub mod encode_filter;
pub mod endpoint_attribute_filter;
pub mod header_based_testing_filter;
pub mod label_selector_filter;
pub mod prefill_filter;
pub mod prefix_cache_affinity_filter;
mod role;
pub mod served_model_filter;
pub mod session_affinity_filter;
pub mod slo_headroom_tier_filter;
pub mod topology_affinity_filter;
pub mod utilization_filter;
