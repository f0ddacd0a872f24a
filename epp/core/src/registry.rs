//! The table of plugin types: one line each.

use llmd_epp_api::PluginType;

use crate::plugins::{
    admission, datalayer, decider, filter, flow, parsing, picker, producer, profile, request, response,
    saturation, scorer, screener,
};

/// Every plugin type of this build.
pub const TABLE: &[PluginType] = &[
    filter::by_label::PLUGIN,
    filter::decode_filter::PLUGIN,
    filter::encode_filter::PLUGIN,
    filter::endpoint_attribute_filter::PLUGIN,
    filter::header_based_testing_filter::PLUGIN,
    filter::label_selector_filter::PLUGIN,
    filter::label_selector_filter::BY_LABEL_SELECTOR,
    filter::prefill_filter::PLUGIN,
    filter::prefix_cache_affinity_filter::PLUGIN,
    filter::served_model_filter::PLUGIN,
    filter::session_affinity_filter::PLUGIN,
    filter::session_affinity_filter::MULTICLUSTER,
    filter::slo_headroom_tier_filter::PLUGIN,
    filter::topology_affinity_filter::PLUGIN,
    filter::utilization_filter::PLUGIN,
    scorer::active_request_scorer::PLUGIN,
    scorer::context_length_aware::PLUGIN,
    scorer::endpoint_attribute_scorer::PLUGIN,
    scorer::header_label_affinity_scorer::PLUGIN,
    scorer::kv_cache_utilization_scorer::PLUGIN,
    scorer::latency_scorer::PLUGIN,
    scorer::load_aware_scorer::PLUGIN,
    scorer::lora_affinity_scorer::PLUGIN,
    scorer::mm_embeddings_cache_scorer::PLUGIN,
    scorer::multicluster_kv_cache_utilization_scorer::PLUGIN,
    scorer::multicluster_queue_scorer::PLUGIN,
    scorer::no_hit_lru_scorer::PLUGIN,
    scorer::prefix_cache_scorer::PLUGIN,
    scorer::prefix_cache_scorer::MULTICLUSTER,
    scorer::queue_scorer::PLUGIN,
    scorer::running_requests_size_scorer::PLUGIN,
    scorer::session_affinity_scorer::PLUGIN,
    scorer::token_load_scorer::PLUGIN,
    scorer::topology_affinity_scorer::PLUGIN,
    picker::max_score_picker::PLUGIN,
    picker::random_picker::PLUGIN,
    picker::weighted_random_picker::PLUGIN,
    profile::data_parallel_profile_handler::PLUGIN,
    profile::disagg_headers_handler::PLUGIN,
    profile::disagg_headers_handler::PREFILL_HEADER_HANDLER,
    profile::disagg_profile_handler::PLUGIN,
    profile::header_profile_handler::PLUGIN,
    profile::pd_profile_handler::PLUGIN,
    profile::single_profile_handler::PLUGIN,
    decider::always_disagg_multimodal_decider::PLUGIN,
    decider::always_disagg_pd_decider::PLUGIN,
    decider::prefix_based_pd_decider::PLUGIN,
    producer::approx_prefix_cache_producer::PLUGIN,
    producer::approx_prefix_cache_producer::MULTICLUSTER,
    producer::burst_prefix_cache_producer::PLUGIN,
    producer::inflight_load_producer::PLUGIN,
    producer::mm_embeddings_cache_producer::PLUGIN,
    producer::p2p_source_producer::PLUGIN,
    producer::session_id_producer::PLUGIN,
    producer::token_producer::PLUGIN,
    producer::token_producer::TOKENIZER,
    admission::latency_slo_admitter::PLUGIN,
    admission::probabilistic_admitter::PLUGIN,
    request::agent_identity::PLUGIN,
    screener::disaggregatedset_rollout_screener::PLUGIN,
    response::destination_endpoint_served_verifier::PLUGIN,
    response::request_attribute_reporter::PLUGIN,
    saturation::concurrency_detector::PLUGIN,
    saturation::utilization_detector::PLUGIN,
    flow::fcfs_ordering_policy::PLUGIN,
    flow::global_strict_fairness_policy::PLUGIN,
    flow::static_usage_limit_policy::PLUGIN,
    parsing::anthropic_parser::PLUGIN,
    parsing::openai_parser::PLUGIN,
    parsing::passthrough_parser::PLUGIN,
    parsing::sglanghttp_parser::PLUGIN,
    parsing::vertexai_parser::PLUGIN,
    parsing::vllmgrpc_parser::PLUGIN,
    parsing::vllmhttp_parser::PLUGIN,
    datalayer::core_metrics_extractor::PLUGIN,
    datalayer::dcgm_data_source::PLUGIN,
    datalayer::dcgm_extractor::PLUGIN,
    datalayer::endpoint_notification_source::PLUGIN,
    datalayer::file_discovery::MULTICLUSTER,
    datalayer::file_discovery::PLUGIN,
    datalayer::k8s_notification_source::PLUGIN,
    datalayer::models_data_extractor::PLUGIN,
    datalayer::models_data_source::PLUGIN,
    datalayer::multicluster_metrics_data_source::PLUGIN,
    datalayer::multicluster_metrics_extractor::PLUGIN,
    datalayer::metrics_data_source::PLUGIN,
    datalayer::topology_extractor::PLUGIN,
];

/// The type of this name.
pub fn find(name: &str) -> Option<&'static PluginType> {
    TABLE.iter().find(|plugin_type| plugin_type.name == name)
}

/// The type whose default instance produces `attribute`.
pub fn default_producer(attribute: &str) -> Option<&'static str> {
    TABLE
        .iter()
        .find(|plugin_type| plugin_type.default_producer_of.contains(&attribute))
        .map(|plugin_type| plugin_type.name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_each_attribute_has_one_default_producer() {
        let names: BTreeSet<&str> = TABLE.iter().map(|plugin_type| plugin_type.name).collect();
        assert_eq!(names.len(), TABLE.len());
        let attributes: Vec<&str> = TABLE
            .iter()
            .flat_map(|t| t.default_producer_of)
            .copied()
            .collect();
        let distinct: BTreeSet<&str> = attributes.iter().copied().collect();
        assert_eq!(distinct.len(), attributes.len());
    }
}
