//! `header-label-affinity-scorer`: prefers endpoints whose label has the value of a request header.
//!
//! | parameter | default |
//! |---|---|
//! | `headerName` | required |
//! | `labelKey` | required |
//!
//! Equal gives 1, everything else 0.

use llmd_epp_api::plugin::Scorer;
use llmd_epp_api::{BuildError, Cycle, Plugin, PluginType, Stability};
use serde::Deserialize;

/// Type name in configurations.
pub const TYPE: &str = "header-label-affinity-scorer";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Alpha,
    default_producer_of: &[],
    build: |context| {
        let Parameters {
            header_name,
            label_key,
        } = context.parameters()?;
        for (field, value) in [("headerName", &header_name), ("labelKey", &label_key)] {
            if value.is_empty() {
                return Err(BuildError::value(field, "must not be empty"));
            }
        }
        Ok(Plugin::scorer(HeaderLabelAffinityScorer {
            header: header_name.to_ascii_lowercase(),
            label: label_key,
        }))
    },
};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parameters {
    header_name: String,
    label_key: String,
}

struct HeaderLabelAffinityScorer {
    header: String,
    label: String,
}

impl Scorer for HeaderLabelAffinityScorer {
    fn score(&self, cycle: &Cycle<'_>, candidates: &[u32], scores: &mut [f64]) {
        let Some(wanted) = cycle.request.headers.get(&self.header) else {
            return;
        };
        for (score, index) in scores.iter_mut().zip(candidates) {
            let label = cycle.snapshot.endpoints[*index as usize].label(&self.label);
            *score = f64::from(u8::from(label == Some(wanted)));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::testing::{Pool, build, build_error};

    #[test]
    fn the_label_must_equal_the_header() {
        let scorer = build(&PLUGIN, json!({"headerName": "X-Zone", "labelKey": "zone"}))
            .scorer
            .unwrap();
        let mut pool = Pool::of(3).label(0, "zone", "a").label(1, "zone", "b");
        assert_eq!(pool.scored(&*scorer), [0.0; 3]);
        pool.request.headers.push("x-zone", b"b");
        assert_eq!(pool.scored(&*scorer), [0.0, 1.0, 0.0]);
    }

    #[test]
    fn both_parameters_are_needed() {
        assert!(build_error(&PLUGIN, json!({"labelKey": "a"})).contains("headerName"));
        assert!(build_error(&PLUGIN, json!({"headerName": "a"})).contains("labelKey"));
    }
}
