//! Chained block hashes of a prompt (llm-d-router, approximate prefix cache).
//!
//! `h₋₁ = xxh64(model ‖ salt)`, `bᵢ = xxh64(tokens of block i, little-endian u32)`,
//! `hᵢ = xxh64(LE64(bᵢ) ‖ LE64(hᵢ₋₁))`. The partial tail block counts as a block. Text becomes tokens
//! of four bytes, zero padded, so that a block of text is hashed straight from the prompt's bytes.

use llmd_epp_api::PromptInput;
use xxhash_rust::xxh64::{Xxh64, xxh64};

/// Bytes of text that count as one token.
pub const BYTES_PER_TOKEN: usize = 4;

const SEED: u64 = 0;

/// Size of one hashed prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PromptBlocks {
    /// Blocks appended to the hashes, the partial tail included.
    pub blocks: usize,
    /// Tokens of the whole prompt, also beyond the block limit.
    pub tokens: u64,
}

/// The start of the chain: prompts of another model or another salt never match.
pub fn root(model: &str, cache_salt: &str) -> u64 {
    let mut hasher = Xxh64::new(SEED);
    hasher.update(model.as_bytes());
    hasher.update(cache_salt.as_bytes());
    hasher.digest()
}

/// Appends the chained hashes of at most `max_blocks` blocks of `block_tokens` tokens to `hashes`.
pub fn hash_prompt(
    root: u64,
    input: &PromptInput,
    block_tokens: usize,
    max_blocks: usize,
    hashes: &mut Vec<u64>,
) -> PromptBlocks {
    let block_tokens = block_tokens.max(1);
    let from = hashes.len();
    let tokens = match input {
        PromptInput::Text(text) => {
            hash_text(text, block_tokens * BYTES_PER_TOKEN, max_blocks, hashes);
            text.len().div_ceil(BYTES_PER_TOKEN)
        }
        PromptInput::Tokens(ids) => {
            hash_tokens(ids, block_tokens, max_blocks, hashes);
            ids.len()
        }
    };
    chain(root, &mut hashes[from..]);
    PromptBlocks {
        blocks: hashes.len() - from,
        tokens: tokens as u64,
    }
}

fn hash_text(text: &[u8], block_bytes: usize, max_blocks: usize, hashes: &mut Vec<u64>) {
    for block in text.chunks(block_bytes).take(max_blocks) {
        let missing = block.len().wrapping_neg() % BYTES_PER_TOKEN;
        if missing == 0 {
            hashes.push(xxh64(block, SEED));
        } else {
            let mut hasher = Xxh64::new(SEED);
            hasher.update(block);
            hasher.update(&[0; BYTES_PER_TOKEN][..missing]);
            hashes.push(hasher.digest());
        }
    }
}

fn hash_tokens(ids: &[u32], block_tokens: usize, max_blocks: usize, hashes: &mut Vec<u64>) {
    let mut bytes = Vec::with_capacity(block_tokens.min(ids.len()) * BYTES_PER_TOKEN);
    for block in ids.chunks(block_tokens).take(max_blocks) {
        bytes.clear();
        for id in block {
            bytes.extend_from_slice(&id.to_le_bytes());
        }
        hashes.push(xxh64(&bytes, SEED));
    }
}

/// The blocks are hashed first and chained after: only this short pass depends on itself.
fn chain(root: u64, hashes: &mut [u64]) {
    let mut previous = root;
    let mut pair = [0_u8; 16];
    for hash in hashes {
        pair[..8].copy_from_slice(&hash.to_le_bytes());
        pair[8..].copy_from_slice(&previous.to_le_bytes());
        previous = xxh64(&pair, SEED);
        *hash = previous;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(bytes: &[u8]) -> Vec<u64> {
        let mut hashes = Vec::new();
        hash_prompt(
            root("m", ""),
            &PromptInput::Text(bytes.to_vec()),
            64,
            usize::MAX,
            &mut hashes,
        );
        hashes
    }

    /// The formula of the module doc, token by token.
    fn reference(root: u64, tokens: &[u32], block_tokens: usize) -> Vec<u64> {
        let mut previous = root;
        let mut hashes = Vec::new();
        for block in tokens.chunks(block_tokens) {
            let bytes: Vec<u8> = block.iter().flat_map(|token| token.to_le_bytes()).collect();
            let mut pair = xxh64(&bytes, 0).to_le_bytes().to_vec();
            pair.extend_from_slice(&previous.to_le_bytes());
            previous = xxh64(&pair, 0);
            hashes.push(previous);
        }
        hashes
    }

    #[test]
    fn the_partial_tail_is_a_block() {
        assert_eq!(text(&[b'a'; 256]).len(), 1);
        assert_eq!(text(&[b'a'; 257]).len(), 2);
        assert_eq!(text(b"").len(), 0);
    }

    #[test]
    fn model_and_salt_separate_chains() {
        assert_ne!(root("m", ""), root("n", ""));
        assert_ne!(root("m", ""), root("m", "tenant"));
    }

    #[test]
    fn the_block_limit_cuts_hashes_but_not_tokens() {
        let mut hashes = Vec::new();
        let size = hash_prompt(1, &PromptInput::Tokens(vec![7; 1000]), 64, 3, &mut hashes);
        assert_eq!((hashes.len(), size.blocks, size.tokens), (3, 3, 1000));
    }

    proptest! {
        #[test]
        fn text_and_tokens_follow_the_formula(bytes in proptest::collection::vec(any::<u8>(), 0..2000), block in 1_usize..100) {
            let mut padded = bytes.clone();
            padded.resize(bytes.len().next_multiple_of(4), 0);
            let tokens: Vec<u32> = padded.chunks(4).map(|four| u32::from_le_bytes(four.try_into().unwrap())).collect();
            let expected = reference(9, &tokens, block);
            let (mut from_text, mut from_tokens) = (Vec::new(), Vec::new());
            hash_prompt(9, &PromptInput::Text(bytes), block, usize::MAX, &mut from_text);
            hash_prompt(9, &PromptInput::Tokens(tokens), block, usize::MAX, &mut from_tokens);
            prop_assert_eq!(&from_text, &expected);
            prop_assert_eq!(&from_tokens, &expected);
        }

        #[test]
        fn a_common_prefix_of_whole_blocks_hashes_alike(prefix in 1_usize..5, left in "[a-z]{1,300}", right in "[A-Z]{1,300}") {
            let shared = vec![b'.'; prefix * 256];
            let one = text(&[&shared[..], left.as_bytes()].concat());
            let two = text(&[&shared[..], right.as_bytes()].concat());
            prop_assert_eq!(&one[..prefix], &two[..prefix]);
            prop_assert_ne!(one[prefix], two[prefix]);
        }
    }
}
