//! `token-producer`: the tokens of prompts, for plugins that compare or count them. `tokenizer` is its deprecated name.
//!
//! | parameter | default |
//! |---|---|
//! | `estimate` | this backend, with the defaults that `estimate` lists |
//! | `modelName` | the model in what is sent to the render backend, which needs it; no effect with `estimate` |
//! | `vllm` {`url`, `timeout`, `mmTimeout`} | the render backend: refused, not in this build |
//! | `udsTokenizerConfig` | deprecated; refused, not in this build |
//!
//! The estimate needs no tokenizer: text counts one token per four bytes, and a medium as many as the parameters say, all
//! equal for equal contents. Token ids that the client sent are what they are. A request of which the body says it all,
//! text without media or token ids, gets no attribute: who reads it takes the prompts of the body.

mod estimate;

use llmd_epp_api::attribute::{TOKENIZED_PROMPT, TokenizedInput};
use llmd_epp_api::plugin::DataProducer;
use llmd_epp_api::{
    AttributeKey, BuildContext, BuildError, Cycle, Plugin, PluginType, PromptInput, Stability,
    TokenizedPrompt,
};
use serde::Deserialize;

use estimate::Estimate;

/// Type name in configurations.
pub const TYPE: &str = "token-producer";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Beta,
    default_producer_of: &[TOKENIZED_PROMPT],
    build,
};

/// The registry line of the deprecated name.
pub const TOKENIZER: PluginType = PluginType {
    name: "tokenizer",
    stability: Stability::Deprecated {
        since: "v0.9",
        removed_in: "v0.11",
    },
    default_producer_of: &[],
    build,
};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parameters {
    model_name: String,
    estimate: Option<Estimate>,
    vllm: Option<serde_json::Value>,
    uds_tokenizer_config: Option<serde_json::Value>,
}

fn build(context: &mut BuildContext<'_>) -> Result<Plugin, BuildError> {
    let Parameters {
        model_name,
        estimate,
        vllm,
        uds_tokenizer_config,
    } = context.parameters()?;
    let refused = [
        ("udsTokenizerConfig", uds_tokenizer_config.is_some()),
        ("vllm", vllm.is_some()),
        ("modelName", !model_name.is_empty() && estimate.is_none()),
    ];
    if let Some((field, _)) = refused.into_iter().find(|(_, is_set)| *is_set) {
        let reason = "asks for a tokenizer, which this build does not have; use estimate";
        return Err(BuildError::value(field, reason));
    }
    let estimate = estimate.unwrap_or_default();
    estimate.check()?;
    let producer = TokenProducer {
        estimate,
        tokenized: context.produces(TOKENIZED_PROMPT)?,
    };
    Ok(Plugin {
        producer: Some(std::sync::Arc::new(producer)),
        ..Plugin::default()
    })
}

struct TokenProducer {
    estimate: Estimate,
    tokenized: AttributeKey<TokenizedPrompt>,
}

impl DataProducer for TokenProducer {
    fn produce(&self, cycle: &mut Cycle<'_>, _: &[u32]) {
        let facts = &cycle.request.facts;
        // Only a chat has media, and it has one prompt.
        let [prompt] = &facts.prompts[..] else { return };
        let PromptInput::Text(text) = &prompt.input else {
            return;
        };
        if facts.media.is_empty() {
            return;
        }
        let (bytes, features) = self.estimate.tokens(text, &facts.media, &cycle.request.headers);
        let prompt = TokenizedInput {
            input: PromptInput::Text(bytes),
            features,
        };
        cycle.attributes.fill(self.tokenized, |tokenized, _| {
            tokenized.prompts = [prompt].into();
            true
        });
    }
}

#[cfg(test)]
mod tests;
