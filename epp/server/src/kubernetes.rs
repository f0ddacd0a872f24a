//! The way to the API server: a client, watches that outlive it, and what its errors mean for people.
//!
//! ```text
//!  --kubeconfig | in cluster ─▶ client ─┬─ watch ─▶ discovery (pools, pods, objectives, rewrites)
//!                                       ├─ lease (leader election)
//!                                       └─ reviews (who may read metrics)
//! ```

pub mod cause;
pub mod client;
pub mod watch;
pub mod watch_metrics;
