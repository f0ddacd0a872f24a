//! Plugins of the data layer: where endpoints come from and what is read from them.
//!
//! ```text
//!  *_data_source ──▶ PolledSource (polled) ──page──▶ PageReader (reader) ◀── *_extractor
//! ```

pub mod core_metrics_extractor;
pub mod dcgm_data_source;
pub mod dcgm_extractor;
pub mod endpoint_notification_source;
pub mod file_discovery;
pub mod k8s_notification_source;
pub mod metrics_data_source;
pub mod models_data_extractor;
pub mod models_data_source;
pub mod multicluster_metrics_data_source;
pub mod multicluster_metrics_extractor;
pub mod notification;
pub mod polled;
pub mod reader;
pub mod topology_extractor;
