//! What vLLM's render endpoints answer.

use std::collections::BTreeMap;

use llmd_epp_api::attribute::{MediaFeature, TokenizedInput};
use llmd_epp_api::{PromptInput, TokenizedPrompt};
use serde::Deserialize;

/// Why an answer is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum AnswerError {
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    #[error("it has {found} prompts, the request has {wanted}")]
    Count { found: usize, wanted: usize },
}

/// One prompt: the whole answer for a chat, one of a list for completions.
#[derive(Deserialize)]
struct Rendered {
    token_ids: Vec<u32>,
    features: Option<Features>,
}

/// By modality, in the order of the prompt.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Features {
    mm_hashes: BTreeMap<String, Vec<Option<String>>>,
    mm_placeholders: BTreeMap<String, Vec<Placeholder>>,
}

#[derive(Clone, Copy, Deserialize)]
struct Placeholder {
    offset: u64,
    length: u64,
}

/// The tokens of a request with this many prompts.
pub(super) fn read(answer: &[u8], prompts: usize) -> Result<TokenizedPrompt, AnswerError> {
    let rendered: Vec<Rendered> = if answer.trim_ascii_start().starts_with(b"[") {
        serde_json::from_slice(answer)?
    } else {
        vec![serde_json::from_slice(answer)?]
    };
    if rendered.len() != prompts {
        return Err(AnswerError::Count {
            found: rendered.len(),
            wanted: prompts,
        });
    }
    let inputs = rendered.into_iter().map(|one| TokenizedInput {
        input: PromptInput::Tokens(one.token_ids),
        features: one.features.map_or_else(Vec::new, Features::listed),
    });
    Ok(TokenizedPrompt {
        prompts: inputs.collect(),
    })
}

impl Features {
    /// A medium without a hash cannot be told from others: it is left out.
    fn listed(self) -> Vec<MediaFeature> {
        let mut listed = Vec::new();
        for (modality, hashes) in self.mm_hashes {
            let places = self.mm_placeholders.get(&modality).map_or(&[][..], Vec::as_slice);
            for (hash, place) in hashes.into_iter().zip(places) {
                if let Some(hash) = hash {
                    listed.push(MediaFeature {
                        modality: modality.as_str().into(),
                        hash: hash.into(),
                        offset: place.offset,
                        length: place.length,
                    });
                }
            }
        }
        listed.sort_by_key(|feature| feature.offset);
        listed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(made: &TokenizedPrompt) -> Vec<&[u32]> {
        let prompts = made.prompts.iter().map(|prompt| match &prompt.input {
            PromptInput::Tokens(ids) => ids.as_slice(),
            PromptInput::Text(_) => &[],
        });
        prompts.collect()
    }

    #[test]
    fn a_chat_is_one_prompt_and_completions_are_a_list() {
        let chat = read(br#"{"token_ids":[1,2],"request_id":"x"}"#, 1).unwrap();
        assert_eq!(tokens(&chat), [[1, 2]]);
        let list = read(br#" [{"token_ids":[1]},{"token_ids":[2],"features":null}]"#, 2).unwrap();
        assert_eq!(tokens(&list), [[1], [2]]);
    }

    #[test]
    fn media_are_listed_by_their_place() {
        let answer = br#"{"token_ids":[1,2,3,4,5,6],"features":{
            "mm_hashes":{"image":["b",null,"c"],"audio":["a"]},
            "mm_placeholders":{"image":[{"offset":3,"length":2},{"offset":9,"length":1},{"offset":10,"length":4}],
                               "audio":[{"offset":0,"length":1}]}}}"#;
        let made = read(answer, 1).unwrap();
        let listed = made.prompts[0].features.iter();
        let listed: Vec<_> = listed
            .map(|feature| (&*feature.modality, &*feature.hash, feature.offset, feature.length))
            .collect();
        assert_eq!(
            listed,
            [("audio", "a", 0, 1), ("image", "b", 3, 2), ("image", "c", 10, 4)]
        );
    }

    #[test]
    fn another_answer_is_none() {
        for (answer, prompts) in [
            (br#"{"tokens":[1]}"#.as_slice(), 1),
            (br#"[{"token_ids":[1]}]"#, 2),
            (br#"{"token_ids":[-1]}"#, 1),
            (b"", 1),
        ] {
            assert!(read(answer, prompts).is_err());
        }
    }
}
