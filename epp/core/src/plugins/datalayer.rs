//! Plugins of the data layer: where endpoints come from and what is read from them.

pub mod core_metrics_extractor;
pub mod file_discovery;
pub mod metrics_data_source;
pub mod topology_extractor;
