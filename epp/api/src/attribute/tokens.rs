//! The token ids of a request's prompts, where they are not simply those of its body.

use std::sync::Arc;

use llmd_openai::PromptInput;

/// Attribute name of [`TokenizedPrompt`].
pub const TOKENIZED_PROMPT: &str = "TokenizedPrompt";

/// An image, video or piece of audio among the tokens of a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaFeature {
    /// `image`, `video` or `audio`.
    pub modality: Box<str>,
    /// Equal for equal contents.
    pub hash: Box<str>,
    /// Tokens before it.
    pub offset: u64,
    /// Tokens it takes.
    pub length: u64,
}

/// One prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenizedInput {
    /// The tokens; text stands for tokens of four bytes.
    pub input: PromptInput,
    /// By offset.
    pub features: Vec<MediaFeature>,
}

/// The prompts of one request. Absent where the prompts of the body are all there is: text without media, and token ids
/// that the client sent.
#[derive(Clone, Debug)]
pub struct TokenizedPrompt {
    /// In the order of the body.
    pub prompts: Arc<[TokenizedInput]>,
}

impl Default for TokenizedPrompt {
    fn default() -> Self {
        Self {
            prompts: Arc::from([]),
        }
    }
}
