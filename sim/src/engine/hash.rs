//! Chained block hashes: equal hashes mean equal tokens from the start of the prompt.

use xxhash_rust::xxh64::Xxh64;

/// Hash of the (empty) prefix before the first block.
///
/// Requests share cached blocks only under one root: it separates adapters and `cache_salt` values.
pub fn root(adapter: Option<&str>, salt: Option<&str>) -> u64 {
    let mut hasher = Xxh64::new(0);
    for part in [adapter, salt] {
        match part {
            Some(text) => {
                hasher.update(&(text.len() as u64 + 1).to_le_bytes());
                hasher.update(text.as_bytes());
            }
            None => hasher.update(&0u64.to_le_bytes()),
        }
    }
    hasher.digest()
}

/// Hash of a full block that follows the prefix `parent`.
pub fn block(parent: u64, tokens: impl Iterator<Item = u32>) -> u64 {
    let mut hasher = Xxh64::new(parent);
    for token in tokens {
        hasher.update(&token.to_le_bytes());
    }
    hasher.digest()
}

/// Hashes of the full blocks of a prompt, but for its last token, which is computed in any case.
pub fn of_prompt(tokens: &[u32], root: u64, block_size: usize) -> Vec<u64> {
    let whole = tokens.len().saturating_sub(1) / block_size * block_size;
    let mut parent = root;
    let blocks = tokens[..whole].chunks(block_size).map(|tokens| {
        parent = block(parent, tokens.iter().copied());
        parent
    });
    blocks.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_hash_depends_on_everything_before_it() {
        let a = block(root(None, None), [1, 2].into_iter());
        assert_eq!(a, block(root(None, None), [1, 2].into_iter()));
        assert_ne!(
            block(a, [3, 4].into_iter()),
            block(root(None, None), [3, 4].into_iter())
        );
    }

    #[test]
    fn adapters_and_salts_do_not_share_blocks() {
        let roots = [
            root(None, None),
            root(Some("a"), None),
            root(None, Some("a")),
            root(Some("a"), Some("a")),
        ];
        for (i, left) in roots.iter().enumerate() {
            assert!(roots[i + 1..].iter().all(|right| right != left));
        }
    }
}
