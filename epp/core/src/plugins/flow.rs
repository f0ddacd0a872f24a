//! Flow-control policies that upstream's default files list. They have no effect while the feature
//! gate `flowControl` is off, which the configuration's warnings say.

pub mod fcfs_ordering_policy;
pub mod global_strict_fairness_policy;
pub mod static_usage_limit_policy;
