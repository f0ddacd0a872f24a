//! `models-data-source`: polls each endpoint's list of models.
//!
//! | parameter | default |
//! |---|---|
//! | `scheme` | `http` (or `https`) |
//! | `path` | `/v1/models` |
//! | `insecureSkipVerify` | true |
//! | `caCertPath`, `clientCertPath`, `clientKeyPath` | none; PEM files, for `https` |
//! | `interval` | every tick of `--refresh-metrics-interval` |

use std::path::PathBuf;
use std::sync::Arc;

use llmd_epp_api::registry::Component;
use llmd_epp_api::{BuildError, Plugin, PluginType, Stability};
use serde::Deserialize;

use super::polled::{PageFormat, PageOf, Parameters, PolledSource, SourceType};

/// Type name in configurations.
pub const TYPE: &str = "models-data-source";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Beta,
    default_producer_of: &[],
    build: |context| {
        let ModelsParameters {
            scheme,
            path,
            insecure_skip_verify,
            ca_cert_path,
            client_cert_path,
            client_key_path,
            interval,
        } = context.parameters()?;
        let parameters = Parameters {
            scheme,
            path,
            port: None,
            insecure_skip_verify,
            ca_cert_path,
            client_cert_path,
            client_key_path,
            interval,
        };
        let built =
            PolledSource::new(SOURCE, &parameters).map_err(|error| BuildError::Shape(error.to_string()))?;
        Ok(Plugin::component(Component::DataSource(Arc::new(built))))
    },
};

const SOURCE: SourceType = SourceType {
    name: TYPE,
    format: PageFormat::Models,
    of: PageOf::Endpoint,
    path: "/v1/models",
    port: None,
    is_secure: false,
};

/// As those of `metrics-data-source`, without a port.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct ModelsParameters {
    scheme: Option<String>,
    path: Option<String>,
    insecure_skip_verify: Option<bool>,
    ca_cert_path: Option<PathBuf>,
    client_cert_path: Option<PathBuf>,
    client_key_path: Option<PathBuf>,
    interval: Option<String>,
}
