//! `token-producer`: the tokens of prompts, for plugins that compare or count them. `tokenizer` is its deprecated name.
//!
//! | parameter | default |
//! |---|---|
//! | `estimate` | this backend, with the defaults that `estimate` lists |
//! | `modelName` | asks for the render backend, and is the model in what is sent there; no effect with `estimate` |
//! | `vllm` {`url`, `timeout`, `mmTimeout`} | the render backend: `http://localhost:8000`, 5s, 30s for requests with media |
//! | `udsTokenizerConfig` | deprecated; refused, not in this build |
//!
//! The render backend is a vLLM that is asked for the tokens of each chat or completion before it is decided; one that does
//! not answer in time, or says no, leaves the prompt as it is.
//!
//! The estimate needs no tokenizer: text counts one token per four bytes, and a medium as many as the parameters say, all
//! equal for equal contents. Token ids that the client sent are what they are. A request of which the body says it all,
//! text without media or token ids, gets no attribute: who reads it takes the prompts of the body.

mod backend;
mod estimate;

use llmd_epp_api::attribute::{TOKENIZED_PROMPT, TokenizedInput};
use llmd_epp_api::plugin::DataProducer;
use llmd_epp_api::{
    AttributeKey, BuildContext, BuildError, Cycle, InferenceRequest, Plugin, PluginType, PromptInput,
    Stability, TokenizedPrompt,
};
use serde::Deserialize;

use backend::Vllm;
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
    vllm: Option<Vllm>,
    uds_tokenizer_config: Option<serde_json::Value>,
}

fn build(context: &mut BuildContext<'_>) -> Result<Plugin, BuildError> {
    let Parameters {
        model_name,
        estimate,
        vllm,
        uds_tokenizer_config,
    } = context.parameters()?;
    if uds_tokenizer_config.is_some() {
        let reason = "is not available in this build; use vllm";
        return Err(BuildError::value("udsTokenizerConfig", reason));
    }
    let (backend, render) = match (estimate, vllm) {
        (Some(_), Some(_)) => {
            let reason = "cannot be set together with estimate: tokens come from one of them";
            return Err(BuildError::value("vllm", reason));
        }
        (None, vllm) if vllm.is_some() || !model_name.is_empty() => {
            let backend = vllm.unwrap_or_default().resolve(&model_name)?;
            (Backend::Render, Some(backend))
        }
        (estimate, _) => {
            let estimate = estimate.unwrap_or_default();
            estimate.check()?;
            (Backend::Estimate(Box::new(estimate)), None)
        }
    };
    let producer = TokenProducer {
        backend,
        tokenized: context.produces(TOKENIZED_PROMPT)?,
    };
    Ok(Plugin {
        producer: Some(std::sync::Arc::new(producer)),
        render,
        ..Plugin::default()
    })
}

enum Backend {
    Estimate(Box<Estimate>),
    /// The answer comes with the request.
    Render,
}

struct TokenProducer {
    backend: Backend,
    tokenized: AttributeKey<TokenizedPrompt>,
}

impl DataProducer for TokenProducer {
    fn produce(&self, cycle: &mut Cycle<'_>, _: &[u32]) {
        let made = match &self.backend {
            Backend::Estimate(estimate) => estimated(estimate, cycle.request),
            Backend::Render => cycle.request.tokens.clone(),
        };
        if let Some(made) = made {
            cycle.attributes.fill(self.tokenized, |tokenized, _| {
                *tokenized = made;
                true
            });
        }
    }
}

fn estimated(estimate: &Estimate, request: &InferenceRequest) -> Option<TokenizedPrompt> {
    let facts = &request.facts;
    if facts.media.is_empty() {
        return None;
    }
    // Only a chat has media, and it has one prompt.
    let [prompt] = &facts.prompts[..] else {
        return None;
    };
    let PromptInput::Text(text) = &prompt.input else {
        return None;
    };
    let (bytes, features) = estimate.tokens(text, &facts.media, &request.headers);
    let prompt = TokenizedInput {
        input: PromptInput::Text(bytes),
        features,
    };
    Some(TokenizedPrompt {
        prompts: [prompt].into(),
    })
}

#[cfg(test)]
mod tests;
