//! `topology-extractor`: says which labels of a pod tell where it is.
//!
//! | parameter | default label |
//! |---|---|
//! | `hostname` | `kubernetes.io/hostname` |
//! | `rack` | `topology.kubernetes.io/rack` |
//! | `zone` | `topology.kubernetes.io/zone` |
//! | `region` | `topology.kubernetes.io/region` |
//!
//! Read from the endpoints' own labels when a plugin compares them; no source fetches anything. Unlike upstream,
//! `spec.hostname` of a pod does not stand in for a missing label: it names the pod, not its host.

use std::sync::Arc;

use llmd_epp_api::attribute::TOPOLOGY;
use llmd_epp_api::plugin::DataProducer;
use llmd_epp_api::{AttributeKey, Cycle, Plugin, PluginType, Stability, Topology};
use serde::Deserialize;

/// Type name in configurations.
pub const TYPE: &str = "topology-extractor";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Alpha,
    default_producer_of: &[TOPOLOGY],
    build: |context| {
        let Parameters {
            hostname,
            rack,
            zone,
            region,
        } = context.parameters()?;
        let defaults = [
            (hostname, "kubernetes.io/hostname"),
            (rack, "topology.kubernetes.io/rack"),
            (zone, "topology.kubernetes.io/zone"),
            (region, "topology.kubernetes.io/region"),
        ];
        let labels = defaults.map(|(name, default)| match name.trim() {
            "" => default.into(),
            name => name.into(),
        });
        let extractor = TopologyExtractor {
            labels: Arc::new(labels),
            topology: context.produces(TOPOLOGY)?,
        };
        Ok(Plugin {
            producer: Some(Arc::new(extractor)),
            ..Plugin::default()
        })
    },
};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Parameters {
    hostname: String,
    rack: String,
    zone: String,
    region: String,
}

struct TopologyExtractor {
    labels: Arc<[Box<str>]>,
    topology: AttributeKey<Topology>,
}

impl DataProducer for TopologyExtractor {
    fn produce(&self, cycle: &mut Cycle<'_>, _: &[u32]) {
        cycle.attributes.fill(self.topology, |topology, _| {
            topology.labels = Arc::clone(&self.labels);
            true
        });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::plugins::testing::{Pool, build_error, produced};

    fn labels(parameters: Value) -> Vec<String> {
        let of = (TOPOLOGY, TYPE);
        produced::<Topology, _>(&PLUGIN, parameters, of, &Pool::of(1), |topology| {
            let labels = topology.unwrap().labels.iter();
            labels.map(ToString::to_string).collect()
        })
    }

    #[test]
    fn the_usual_labels_are_the_defaults() {
        assert_eq!(
            labels(Value::Null),
            [
                "kubernetes.io/hostname",
                "topology.kubernetes.io/rack",
                "topology.kubernetes.io/zone",
                "topology.kubernetes.io/region",
            ]
        );
        let slice = labels(json!({"hostname": "disaggregatedset.x-k8s.io/slice"}));
        assert_eq!(slice[0], "disaggregatedset.x-k8s.io/slice");
        assert!(build_error(&PLUGIN, json!({"host": "a"})).contains("host"));
    }
}
