//! The prompts of a request as plugins measure them: what `token-producer` says, else what the body says.

use llmd_epp_api::attribute::TOKENIZED_PROMPT;
use llmd_epp_api::{
    AttributeKey, Attributes, BuildContext, BuildError, InferenceRequest, Need, PromptInput, TokenizedPrompt,
};
use llmd_kv::BYTES_PER_TOKEN;

/// The deprecated name of the type that makes tokens.
const FORMER_PRODUCER: &str = "tokenizer";
const PRODUCER: &str = "token-producer";

/// Where the prompts of requests are found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prompts(AttributeKey<TokenizedPrompt>);

impl Prompts {
    /// Declares that tokens are read, from the default producer or from one under its former name.
    pub(crate) fn read_by(context: &mut BuildContext<'_>, need: Need) -> Result<Self, BuildError> {
        let declared = &context.state.declared;
        let is_former = declared.contains(FORMER_PRODUCER) && !declared.contains(PRODUCER);
        let producer = is_former.then_some(FORMER_PRODUCER);
        Ok(Self(context.consumes(TOKENIZED_PROMPT, producer, need)?))
    }

    /// The tokens of a producer, where they are not those of the body.
    pub(crate) fn tokenized(self, attributes: &Attributes) -> Option<&TokenizedPrompt> {
        attributes.get(self.0)
    }

    /// Each prompt.
    pub(crate) fn of<'a>(
        self,
        request: &'a InferenceRequest,
        attributes: &'a Attributes,
    ) -> impl Iterator<Item = &'a PromptInput> {
        let tokenized = self.tokenized(attributes);
        let made = tokenized.into_iter().flat_map(|made| made.prompts.iter());
        let body = match tokenized {
            Some(_) => &[][..],
            None => &request.facts.prompts[..],
        };
        let body = body.iter().map(|prompt| &prompt.input);
        made.map(|prompt| &prompt.input).chain(body)
    }

    /// Tokens of all prompts.
    pub(crate) fn tokens(self, request: &InferenceRequest, attributes: &Attributes) -> u64 {
        self.of(request, attributes).map(tokens).sum()
    }
}

fn tokens(input: &PromptInput) -> u64 {
    let tokens = match input {
        PromptInput::Text(text) => text.len().div_ceil(BYTES_PER_TOKEN),
        PromptInput::Tokens(ids) => ids.len(),
    };
    tokens as u64
}
