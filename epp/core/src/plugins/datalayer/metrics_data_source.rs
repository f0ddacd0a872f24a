//! `metrics-data-source`: polls each endpoint's Prometheus page.
//!
//! | parameter | default |
//! |---|---|
//! | `scheme` | `http` (or `https`) |
//! | `path` | `/metrics` |
//! | `port` | the endpoint's port |
//! | `insecureSkipVerify` | true |
//! | `caCertPath`, `clientCertPath`, `clientKeyPath` | none; PEM files, for `https` |
//! | `interval` | every tick of `--refresh-metrics-interval` |
//!
//! This file holds the parameters; the server crate opens the connections.

use std::sync::Arc;

use llmd_epp_api::registry::Component;
use llmd_epp_api::{BuildError, Plugin, PluginType, Stability};

use super::polled::{PageFormat, PageOf, PolledSource, SourceType};

/// Type name in configurations.
pub const TYPE: &str = "metrics-data-source";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Beta,
    default_producer_of: &[],
    build: |context| {
        let built = PolledSource::new(SOURCE, &context.parameters()?)
            .map_err(|error| BuildError::Shape(error.to_string()))?;
        Ok(Plugin::component(Component::DataSource(Arc::new(built))))
    },
};

/// The pages of engines.
pub const SOURCE: SourceType = SourceType {
    name: TYPE,
    format: PageFormat::Metrics,
    of: PageOf::Endpoint,
    path: "/metrics",
    port: None,
    is_secure: false,
};

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use super::super::polled::ParameterError;
    use super::*;

    fn built(yaml: &str) -> Result<PolledSource, ParameterError> {
        PolledSource::new(SOURCE, &serde_yaml::from_str(yaml).expect("parameters"))
    }

    #[test]
    fn defaults_are_those_of_upstream() {
        let plain = PolledSource {
            source_type: SOURCE,
            path: "/metrics".to_owned(),
            port: None,
            tls: None,
            interval: None,
        };
        assert_eq!(built("{}"), Ok(plain));
    }

    #[test]
    fn https_takes_its_files() {
        let source =
            built("{scheme: https, port: 9443, interval: 1m0.5s, caCertPath: ca.pem}").expect("valid");
        let tls = source.tls.expect("https");
        assert_eq!((tls.skip_verify, tls.ca), (true, Some(PathBuf::from("ca.pem"))));
        assert_eq!(
            (source.port, source.interval),
            (Some(9443), Some(Duration::from_millis(60_500)))
        );
    }

    #[test]
    fn wrong_values_name_the_field() {
        for (yaml, word) in [
            ("{scheme: ftp}", "scheme 'ftp'"),
            ("{path: metrics}", "path 'metrics'"),
            ("{path: \"/a b\"}", "path '/a b'"),
            ("{port: 0}", "port 0"),
            ("{port: 65536}", "port 65536"),
            ("{scheme: https, clientCertPath: a}", "clientKeyPath"),
            ("{caCertPath: a}", "caCertPath needs scheme https"),
            ("{scheme: https, insecureSkipVerify: false}", "needs caCertPath"),
            ("{interval: 50}", "interval '50'"),
            ("{interval: 0s}", "interval '0s'"),
            ("{interval: -1s}", "interval '-1s'"),
            ("{interval: 5parsecs}", "interval '5parsecs'"),
        ] {
            let error = built(yaml).expect_err(yaml).to_string();
            assert!(error.contains(word), "{yaml}: {error}");
        }
    }
}
