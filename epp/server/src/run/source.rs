//! Where the endpoints come from: the command line, a file, or the API server.

use std::sync::Arc;

use kube::Client;
use llmd_epp_api::EndpointSpec;
use llmd_epp_core::plugins::datalayer::file_discovery::FileDiscovery;

use super::RunError;
use crate::discovery::{file, fixed, kubernetes};
use crate::flags::{EppOptions, Membership};
use crate::kubernetes::client;
use crate::kubernetes::watch_metrics::WatchMetrics;

pub(super) enum Source {
    Fixed(Vec<EndpointSpec>),
    File(Arc<FileDiscovery>),
    Kubernetes(Client),
}

/// Running discovery; dropping it ends it.
pub(super) enum Discovery {
    /// Nothing ever changes.
    Fixed,
    File {
        #[expect(dead_code, reason = "held")]
        file: file::Discovery,
    },
    Kubernetes {
        #[expect(dead_code, reason = "held")]
        cluster: kubernetes::Discovery,
    },
}

impl Source {
    /// A file that the configuration names comes first, as upstream: nothing is asked of a cluster then.
    pub(super) async fn of(
        options: &EppOptions,
        file: Option<&Arc<FileDiscovery>>,
    ) -> Result<Self, RunError> {
        let pool = &options.pool;
        if !pool.endpoints.is_empty() {
            if file.is_some() {
                return Err(RunError::TwoLists);
            }
            tell_of_metrics(options);
            return Ok(Self::Fixed(fixed::endpoints(&pool.endpoints)));
        }
        let Some(file) = file else {
            if pool.membership.is_none() {
                return Err(RunError::NoDiscovery);
            }
            return Ok(Self::Kubernetes(
                client::connect(pool.kubeconfig.as_deref()).await?,
            ));
        };
        let only_in_a_cluster = match pool.membership {
            Some(Membership::Selector { .. }) => Some("endpoint-selector"),
            _ if pool.leader_election => Some("ha-enable-leader-election"),
            _ if pool.kubeconfig.is_some() => Some("kubeconfig"),
            _ => None,
        };
        if let Some(flag) = only_in_a_cluster {
            return Err(RunError::FileDiscovery(flag));
        }
        tell_of_metrics(options);
        Ok(Self::File(Arc::clone(file)))
    }

    /// The way to the API server, when there is one.
    pub(super) fn client(&self) -> Option<&Client> {
        match self {
            Self::Fixed(_) | Self::File(_) => None,
            Self::Kubernetes(client) => Some(client),
        }
    }

    /// Starts feeding `sinks`. A file is read when this returns; a cluster is asked later.
    pub(super) async fn start(
        self,
        options: &EppOptions,
        sinks: kubernetes::Sinks,
        registry: &prometheus::Registry,
    ) -> Result<Discovery, RunError> {
        match self {
            Self::Fixed(endpoints) => {
                sinks.layer.set_endpoints(endpoints);
                sinks.health.synced();
                Ok(Discovery::Fixed)
            }
            Self::File(discovery) => {
                let file = file::start(&discovery, &sinks.layer).await?;
                sinks.health.synced();
                Ok(Discovery::File { file })
            }
            Self::Kubernetes(client) => {
                let metrics = WatchMetrics::register(registry)?;
                let cluster = kubernetes::start(client, options.pool.clone(), sinks, metrics);
                Ok(Discovery::Kubernetes { cluster })
            }
        }
    }
}

fn tell_of_metrics(options: &EppOptions) {
    if options.pool.metrics_auth {
        tracing::info!(
            "the metrics port does not authenticate: --metrics-endpoint-auth has no effect without Kubernetes, as upstream"
        );
    }
}
