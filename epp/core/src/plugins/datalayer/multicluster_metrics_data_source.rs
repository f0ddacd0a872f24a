//! `multicluster-metrics-data-source`: polls the metrics of each endpoint that is a cluster.
//!
//! | parameter | default |
//! |---|---|
//! | `scheme` | `https` (or `http`): the way leads out of the cluster |
//! | `path` | `/metrics` |
//! | `port` | the endpoint's; its labels `metricsAddress` and `metricsPort` come first |
//! | `insecureSkipVerify` | false |
//! | `caCertPath`, `clientCertPath`, `clientKeyPath` | none; PEM files, for `https` |
//! | `interval` | every tick of `--refresh-metrics-interval` |

use std::sync::Arc;

use llmd_epp_api::registry::Component;
use llmd_epp_api::{BuildError, Plugin, PluginType, Stability};

use super::polled::{PageFormat, PageOf, PolledSource, SourceType};

/// Type name in configurations.
pub const TYPE: &str = "multicluster-metrics-data-source";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Alpha,
    default_producer_of: &[],
    build: |context| {
        let built = PolledSource::new(SOURCE, &context.parameters()?)
            .map_err(|error| BuildError::Shape(error.to_string()))?;
        Ok(Plugin::component(Component::DataSource(Arc::new(built))))
    },
};

const SOURCE: SourceType = SourceType {
    name: TYPE,
    format: PageFormat::Metrics,
    of: PageOf::Labels,
    path: "/metrics",
    port: None,
    is_secure: true,
};
