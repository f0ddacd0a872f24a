//! Endpoints, objectives and model rewrites from the API server.
//!
//! ```text
//!  InferencePool ─┐
//!  (or flags)     ├─▶ members ──set_endpoints──▶ data layer
//!  pods ──────────┘
//!  InferenceObjective, InferenceModelRewrite ─▶ traffic ──set_traffic_rules──▶ Epp
//! ```
//!
//! What is known stays in use while the API server is away; a metric says so (`watch_metrics`).

mod groups;
mod members;
pub mod pods;
pub mod pool;
pub mod traffic;

use std::time::Duration;

use kube::Client;
use llmd_epp_core::traffic::TrafficRules;
use tokio_util::task::AbortOnDropHandle;

use crate::datalayer::DataLayer;
use crate::flags::PoolOptions;
use crate::health::Health;
use crate::kubernetes::watch_metrics::WatchMetrics;

/// Longest wait for the first objectives and rewrites before the pool counts as known.
const FIRST_TRAFFIC: Duration = Duration::from_secs(5);

/// What discovery feeds.
pub struct Sinks {
    /// Gets the endpoints.
    pub layer: DataLayer,
    /// Told whether the pool is known and its protocol can be served.
    pub health: Health,
    /// Whether every parser can serve this application protocol.
    pub supports: Box<dyn Fn(&str) -> bool + Send + Sync>,
    /// Gets priorities and rewrites.
    pub set_traffic: Box<dyn Fn(TrafficRules) + Send + Sync>,
}

/// Running discovery; dropping it stops every watch.
#[derive(Debug)]
pub struct Discovery {
    _task: AbortOnDropHandle<()>,
}

/// Follows the pool until the result is dropped. Returns at once: the pool is known when
/// [`Health::is_ready`] says so.
pub fn start(client: Client, pool: PoolOptions, sinks: Sinks, metrics: WatchMetrics) -> Discovery {
    let Sinks {
        layer,
        health,
        supports,
        set_traffic,
    } = sinks;
    let task = tokio::spawn(async move {
        let traffic = traffic::Traffic::start(
            client.clone(),
            &pool,
            set_traffic,
            metrics.clone(),
            traffic::ASK_EVERY,
        );
        // A request must not miss its rewrite only because its pool was known first.
        if tokio::time::timeout(FIRST_TRAFFIC, traffic.first())
            .await
            .is_err()
        {
            tracing::warn!(
                "objectives and model rewrites are not known yet; the picker goes on without them"
            );
        }
        let members = members::Members::new(client, pool, layer, health, supports, metrics);
        members.run().await;
        drop(traffic);
    });
    Discovery {
        _task: AbortOnDropHandle::new(task),
    }
}
