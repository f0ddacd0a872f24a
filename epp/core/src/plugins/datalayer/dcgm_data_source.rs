//! `dcgm-data-source`: polls NVIDIA's DCGM exporter beside each endpoint, or on its node.
//!
//! | parameter | default |
//! |---|---|
//! | `scheme` | `http` (or `https`) |
//! | `path` | `/metrics` |
//! | `port` | 9400 |
//! | `insecureSkipVerify` | true |
//! | `useNodeAddress` | false: the exporter is a container of the pod; true: it runs once per node |
//! | `interval` | every tick of `--refresh-metrics-interval` |

use std::sync::Arc;

use llmd_epp_api::registry::Component;
use llmd_epp_api::{BuildError, Plugin, PluginType, Stability};
use serde::Deserialize;

use super::polled::{PageFormat, PageOf, Parameters, PolledSource, SourceType};

/// Type name in configurations.
pub const TYPE: &str = "dcgm-data-source";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Alpha,
    default_producer_of: &[],
    build: |context| {
        let DcgmParameters {
            scheme,
            path,
            port,
            insecure_skip_verify,
            interval,
            use_node_address,
        } = context.parameters()?;
        let common = Parameters {
            scheme,
            path,
            port,
            insecure_skip_verify,
            interval,
            ..Parameters::default()
        };
        let source = SourceType {
            of: if use_node_address {
                PageOf::Node
            } else {
                PageOf::Endpoint
            },
            ..SOURCE
        };
        let built =
            PolledSource::new(source, &common).map_err(|error| BuildError::Shape(error.to_string()))?;
        Ok(Plugin::component(Component::DataSource(Arc::new(built))))
    },
};

const SOURCE: SourceType = SourceType {
    name: TYPE,
    format: PageFormat::Metrics,
    of: PageOf::Endpoint,
    path: "/metrics",
    port: Some(9400),
    is_secure: false,
};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct DcgmParameters {
    scheme: Option<String>,
    path: Option<String>,
    port: Option<i64>,
    insecure_skip_verify: Option<bool>,
    interval: Option<String>,
    use_node_address: bool,
}
