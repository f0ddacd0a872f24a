//! What values are, and what is made of some of them.

use crate::{Prompt, PromptInput};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    String,
    Number,
    Bool,
    Null,
    Object,
    Array,
}

impl Shape {
    /// Whether the raw JSON of such a value can be a prompt.
    pub(super) const fn is_document(self) -> bool {
        matches!(self, Self::String | Self::Object | Self::Array)
    }
}

pub(super) fn non_negative(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Token-id inputs pass as tokens; everything else is the JSON of the input.
pub(super) fn embeddings_prompts(input: Vec<u8>) -> Vec<Prompt> {
    let tokens = |list| Prompt {
        input: PromptInput::Tokens(list),
    };
    let second = input.iter().skip(1).find(|byte| !byte.is_ascii_whitespace());
    if input.first() == Some(&b'[') && second.is_some_and(|byte| byte.is_ascii_digit() || *byte == b'[') {
        if let Ok(list) = serde_json::from_slice::<Vec<u32>>(&input) {
            return vec![tokens(list)];
        }
        if let Ok(lists) = serde_json::from_slice::<Vec<Vec<u32>>>(&input) {
            return lists.into_iter().map(tokens).collect();
        }
    }
    vec![Prompt {
        input: PromptInput::Text(input),
    }]
}
