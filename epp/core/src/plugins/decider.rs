//! Deciders: whether a stage of a disaggregated request runs.

pub mod always_disagg_multimodal_decider;
pub mod always_disagg_pd_decider;
pub mod prefix_based_pd_decider;
