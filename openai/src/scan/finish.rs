//! From what was collected to the facts, or why the body is none of its kind.

use super::{
    BodyKind, ScanError, chat::Messages, extract::Extractor, prompt::Prompts, shape::embeddings_prompts,
    texts::Texts,
};
use crate::{Prompt, PromptInput, RequestFacts};

impl Extractor {
    pub(super) fn into_facts(self) -> Result<RequestFacts, ScanError> {
        let invalid = ScanError::Invalid(self.kind.invalid_text());
        let mut facts = self.facts;
        facts.max_output_tokens = self.max_completion_tokens.or(self.max_tokens);
        facts.prompts = match self.kind {
            BodyKind::ChatCompletions => {
                let messages = self.messages.filter(Messages::is_valid).ok_or(invalid)?;
                let (text, media_parts, media) = messages.into_text();
                (facts.media_parts, facts.media) = (media_parts, media);
                for medium in &mut facts.media {
                    medium.at += self.tools.len();
                }
                let mut prompt = self.tools;
                if prompt.is_empty() {
                    prompt = text;
                } else {
                    prompt.extend_from_slice(&text);
                }
                vec![Prompt {
                    input: PromptInput::Text(prompt),
                }]
            }
            BodyKind::AnthropicMessages => {
                let texts = self.texts.filter(Texts::has_messages).ok_or(invalid)?;
                let (mut prompt, media_of_system) = self.system.into_text();
                let (text, media_parts) = texts.into_text();
                facts.media_parts = media_of_system + media_parts;
                prompt.extend_from_slice(&self.tools);
                prompt.extend_from_slice(&text);
                vec![Prompt {
                    input: PromptInput::Text(prompt),
                }]
            }
            BodyKind::VllmGenerate | BodyKind::SglangGenerate => {
                let prompts = self.prompts.and_then(Prompts::into_prompts).ok_or(invalid)?;
                if prompts.iter().any(Prompt::is_text) {
                    return Err(ScanError::Invalid(self.kind.invalid_text()));
                }
                prompts
            }
            BodyKind::Completions | BodyKind::Images => {
                self.prompts.and_then(Prompts::into_prompts).ok_or(invalid)?
            }
            BodyKind::Embeddings => embeddings_prompts(self.document.ok_or(invalid)?),
            // The last of them has no extractor.
            BodyKind::Responses | BodyKind::Conversations | BodyKind::Grpc(_) => {
                vec![Prompt {
                    input: PromptInput::Text(self.document.ok_or(invalid)?),
                }]
            }
        };
        Ok(facts)
    }
}
