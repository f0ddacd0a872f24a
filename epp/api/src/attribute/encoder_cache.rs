//! What engines are thought to hold of a request's encoded media.

/// Attribute name of [`EncoderCacheMatch`].
pub const ENCODER_CACHE_MATCH_INFO: &str = "EncoderCacheMatchInfo";

/// Cached embeddings per endpoint, in tokens.
#[derive(Debug, Default)]
pub struct EncoderCacheMatch {
    /// Tokens of media that each endpoint has encoded before, by snapshot index.
    pub matched: Vec<u64>,
    /// Tokens of all media of the request.
    pub total: u64,
}

impl EncoderCacheMatch {
    /// Cached share of endpoint `index`, 0..=1; 0 for a request without media.
    pub fn ratio(&self, index: u32) -> f64 {
        if self.total == 0 {
            return 0.0;
        }
        let matched = self.matched.get(index as usize).copied().unwrap_or(0);
        matched as f64 / self.total as f64
    }
}
