//! What all reconciles of a process, and of one scope, share.

use std::sync::Arc;
use std::time::Instant;

use kube::Client;
use llmd_render::RenderOptions;

use crate::apply::Sent;
use crate::backoff::Backoff;
use crate::capabilities::Capabilities;
use crate::dereference::References;
use crate::engine_logs::EngineLogs;
use crate::events::Events;
use crate::flags::Options;
use crate::metrics::Metrics;
use crate::stores::Stores;
use crate::throttle::Throttle;

/// Of the process.
pub(crate) struct Shared {
    pub(crate) client: Client,
    pub(crate) render: RenderOptions,
    pub(crate) metrics: Metrics,
    pub(crate) events: Events,
    pub(crate) backoff: Backoff,
    pub(crate) sent: Sent,
    pub(crate) engine_logs: EngineLogs,
    pub(crate) status_writes: Throttle,
    /// Told when resources that refer to others were reconciled.
    pub(crate) usage: tokio::sync::Notify,
}

impl Shared {
    pub(crate) fn new(client: Client, options: &Options, metrics: Metrics, identity: &str) -> Self {
        Self {
            events: Events::new(client.clone(), identity.to_owned()),
            engine_logs: EngineLogs::new(options.read_engine_logs.then(|| client.clone())),
            client,
            render: options.render.clone(),
            metrics,
            backoff: Backoff::default(),
            sent: Sent::default(),
            status_writes: Throttle::new(Instant::now()),
            usage: tokio::sync::Notify::new(),
        }
    }
}

/// Of one scope.
pub(crate) struct Context {
    pub(crate) shared: Arc<Shared>,
    pub(crate) stores: Stores,
    pub(crate) references: Arc<References>,
    pub(crate) served: Capabilities,
}
