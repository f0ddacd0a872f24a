//! `prefix-based-pd-decider`: a request is prefilled elsewhere when the decode endpoint would have much to compute.
//!
//! | parameter | default |
//! |---|---|
//! | `nonCachedTokens` | 0: never |
//! | `promptTokens` | 0: any length |
//!
//! Yes when the prompt has at least `promptTokens` and at least `nonCachedTokens` of it are not cached on the chosen
//! decode endpoint. What is not known is a no.

use std::sync::Arc;

use llmd_epp_api::attribute::PREFIX_CACHE_MATCH_INFO;
use llmd_epp_api::plugin::Decider;
use llmd_epp_api::{AttributeKey, Cycle, Need, Plugin, PluginType, PrefixMatch, Stability};
use serde::Deserialize;

/// Type name in configurations.
pub const TYPE: &str = "prefix-based-pd-decider";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Beta,
    default_producer_of: &[],
    build: |context| {
        let parameters: Parameters = context.parameters()?;
        Ok(Plugin {
            decider: Some(Arc::new(PrefixBasedPdDecider {
                prefix: context.consumes(PREFIX_CACHE_MATCH_INFO, None, Need::Required)?,
                parameters,
            })),
            ..Plugin::default()
        })
    },
};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parameters {
    non_cached_tokens: u64,
    prompt_tokens: u64,
}

struct PrefixBasedPdDecider {
    prefix: AttributeKey<PrefixMatch>,
    parameters: Parameters,
}

impl Decider for PrefixBasedPdDecider {
    fn decide(&self, cycle: &Cycle<'_>, decode: Option<u32>) -> bool {
        let Parameters {
            non_cached_tokens,
            prompt_tokens,
        } = self.parameters;
        let (Some(matched), Some(decode)) = (cycle.attributes.get(self.prefix), decode) else {
            return false;
        };
        non_cached_tokens > 0
            && matched.input_tokens >= prompt_tokens
            && matched.uncached_tokens(decode) >= non_cached_tokens
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::testing::{Pool, build_error, with_prefix};

    /// Endpoint 0 has none and endpoint 1 eight of ten blocks of 64 tokens.
    fn decides(parameters: serde_json::Value, decode: Option<u32>) -> bool {
        let decide = |plugin: &Plugin, cycle: &mut Cycle<'_>| {
            let decider = plugin.decider.clone().unwrap();
            decider.decide(cycle, decode)
        };
        with_prefix(&PLUGIN, parameters, &[0, 8], 10, decide)(&Pool::of(2))
    }

    #[test]
    fn what_is_not_cached_on_the_decode_endpoint_counts() {
        assert!(decides(json!({"nonCachedTokens": 640}), Some(0)));
        assert!(!decides(json!({"nonCachedTokens": 641}), Some(0)));
        assert!(decides(json!({"nonCachedTokens": 128}), Some(1)));
        assert!(!decides(json!({"nonCachedTokens": 129}), Some(1)));
    }

    #[test]
    fn zero_unknown_and_short_are_a_no() {
        assert!(!decides(json!({}), Some(0)));
        assert!(!decides(json!({"nonCachedTokens": 1}), None));
        assert!(!decides(
            json!({"nonCachedTokens": 1, "promptTokens": 641}),
            Some(0)
        ));
        assert!(decides(
            json!({"nonCachedTokens": 1, "promptTokens": 640}),
            Some(0)
        ));
        let error = build_error(&PLUGIN, json!({"nonCachedToken": 1}));
        assert!(error.contains("nonCachedToken"), "{error}");
    }
}
