//! `disagg-headers-handler` and `prefill-header-handler`: tell the routing sidecar where prefill and encoding happen.
//!
//! | parameter | default |
//! |---|---|
//! | `prefillProfile` | `prefill` |
//! | `encodeProfile` | `encode` |
//!
//! Both are deprecated: `disagg-profile-handler` does it itself.

use std::sync::Arc;

use llmd_epp_api::plugin::{PreRequest, SchedulingResult};
use llmd_epp_api::{
    BuildContext, BuildError, Cycle, Plugin, PluginType, Rejection, RequestChanges, Stability,
};
use serde::Deserialize;

use super::disaggregation::set_headers;

/// Type name in configurations.
pub const TYPE: &str = "disagg-headers-handler";

const DEPRECATED: Stability = Stability::Deprecated {
    since: "0.9",
    removed_in: "0.11",
};

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: DEPRECATED,
    default_producer_of: &[],
    build,
};

/// The registry line of the older name.
pub const PREFILL_HEADER_HANDLER: PluginType = PluginType {
    name: "prefill-header-handler",
    stability: DEPRECATED,
    default_producer_of: &[],
    build,
};

fn build(context: &mut BuildContext<'_>) -> Result<Plugin, BuildError> {
    let parameters: Parameters = context.parameters()?;
    Ok(Plugin {
        pre_request: Some(Arc::new(DisaggHeadersHandler(parameters))),
        ..Plugin::default()
    })
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parameters {
    prefill_profile: String,
    encode_profile: String,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            prefill_profile: "prefill".to_owned(),
            encode_profile: "encode".to_owned(),
        }
    }
}

struct DisaggHeadersHandler(Parameters);

impl PreRequest for DisaggHeadersHandler {
    fn pre_request(
        &self,
        cycle: &Cycle<'_>,
        result: SchedulingResult<'_>,
        changes: &mut RequestChanges,
    ) -> Result<(), Rejection> {
        set_headers(
            cycle,
            result,
            &self.0.prefill_profile,
            &self.0.encode_profile,
            changes,
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::testing::{Pool, build, changes};

    #[test]
    fn prefill_is_one_endpoint_and_encoding_all_of_them() {
        for plugin_type in [PLUGIN, PREFILL_HEADER_HANDLER] {
            let plugin = build(&plugin_type, json!({"encodeProfile": "e"}));
            let runs: [(&str, &[u32]); 3] = [("decode", &[0]), ("prefill", &[1, 2]), ("e", &[2, 3])];
            let changes = changes(&plugin, &Pool::of(4), &runs, 0);
            assert_eq!(
                changes.set_headers,
                [
                    ("x-prefiller-host-port".into(), "10.0.0.1:8000".to_owned()),
                    (
                        "x-encoder-hosts-ports".into(),
                        "10.0.0.2:8000,10.0.0.3:8000".to_owned()
                    ),
                ]
            );
        }
    }

    #[test]
    fn a_stage_that_found_nothing_has_no_header() {
        let plugin = build(&PLUGIN, json!({}));
        let changes = changes(&plugin, &Pool::of(2), &[("decode", &[0]), ("prefill", &[])], 0);
        assert_eq!(changes.set_headers, []);
    }
}
