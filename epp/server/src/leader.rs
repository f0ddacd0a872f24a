//! Leader election: of several replicas only the holder of the pool's lease is ready.

use kube::Client;
use llmd_lease::{Leadership, Timings};

use crate::flags::PoolOptions;
use crate::health::Health;

/// A running candidate for a pool.
#[derive(Debug)]
pub struct PoolLeader {
    leadership: Leadership,
    health: Health,
}

impl PoolLeader {
    /// Stands for election; from now on `health` is ready only while this replica leads.
    pub fn start(client: Client, pool: &PoolOptions, health: Health) -> Self {
        health.elect();
        let name = format!("epp-{}-{}.llm-d.ai", pool.namespace, pool.name);
        let pod = pool.pod_name.as_deref().unwrap_or("epp");
        let identity = format!("{pod}_{}", uuid::Uuid::new_v4());
        Self {
            leadership: llmd_lease::start(client, &pool.namespace, &name, &identity, Timings::default()),
            health,
        }
    }

    /// Is ready while this replica leads; returns when it does not any more.
    pub async fn led(&self) {
        self.leadership.acquired().await;
        self.health.set_leading(self.leadership.is_leader());
        self.leadership.lost().await;
        self.health.set_leading(false);
    }

    /// Gives the lease back: another replica takes over within seconds.
    pub async fn release(self) {
        self.leadership.release().await;
    }
}
