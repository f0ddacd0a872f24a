//! Failure injection: a share of requests fails, in a way and order that the seed decides.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::api::ApiError;

/// A way to fail. The first six are llm-d-inference-sim's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum FailureKind {
    /// 429.
    RateLimit,
    /// 401.
    InvalidApiKey,
    /// 400, context length exceeded.
    ContextLength,
    /// 500.
    ServerError,
    /// 400.
    InvalidRequest,
    /// 404.
    ModelNotFound,
    /// 503.
    Unavailable,
    /// The answer takes five times as long.
    Slow,
    /// The connection is cut after a few tokens; before any byte when not streaming.
    Reset,
    /// The answer stops after a few tokens and the connection stays open until the client leaves.
    Hang,
    /// The KV blocks of another engine do not come; requests that read none are answered as usual.
    KvTransfer,
    /// The KV blocks of another engine take five times as long.
    SlowKvTransfer,
}

impl FailureKind {
    /// The kinds that answer with an error.
    pub const ERRORS: [Self; 7] = [
        Self::RateLimit,
        Self::InvalidApiKey,
        Self::ContextLength,
        Self::ServerError,
        Self::InvalidRequest,
        Self::ModelNotFound,
        Self::Unavailable,
    ];

    /// The error answer of this kind, for those that have one.
    pub fn error(self, model: &str, served: &[Arc<str>], max_model_len: usize) -> Option<ApiError> {
        Some(match self {
            Self::RateLimit => ApiError::new(
                429,
                "RateLimitError",
                "injected failure: rate limit reached, try again later",
            ),
            Self::InvalidApiKey => ApiError::new(
                401,
                "AuthenticationError",
                "injected failure: incorrect API key provided",
            ),
            Self::ContextLength => ApiError::context_length(max_model_len, max_model_len, 1),
            Self::ServerError => ApiError::new(
                500,
                "InternalServerError",
                "injected failure: internal server error",
            ),
            Self::InvalidRequest => ApiError::bad_request("injected failure: invalid request"),
            Self::ModelNotFound => ApiError::unknown_model(model, served),
            Self::Unavailable => ApiError::new(
                503,
                "ServiceUnavailableError",
                "injected failure: the engine is unavailable",
            ),
            Self::Slow | Self::Reset | Self::Hang | Self::KvTransfer | Self::SlowKvTransfer => return None,
        })
    }
}

/// Decides which requests fail.
#[derive(Debug)]
pub struct Failures {
    rate: u8,
    kinds: Vec<FailureKind>,
    seed: u64,
    requests: AtomicU64,
}

impl Failures {
    /// `rate` percent of requests fail in one of `kinds`.
    pub fn new(rate: u8, kinds: Vec<FailureKind>, seed: u64) -> Self {
        Self {
            rate,
            kinds,
            seed,
            requests: AtomicU64::new(0),
        }
    }

    /// The fate of the next request.
    pub fn draw(&self) -> Option<FailureKind> {
        if self.rate == 0 {
            return None;
        }
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let mut random = fastrand::Rng::with_seed(self.seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        (random.u8(0..100) < self.rate).then(|| self.kinds[random.usize(0..self.kinds.len())])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_holds_and_the_seed_repeats() {
        let draw = |seed| {
            let failures = Failures::new(30, FailureKind::ERRORS.to_vec(), seed);
            (0..2000).map(|_| failures.draw()).collect::<Vec<_>>()
        };
        let drawn = draw(3);
        let failed = drawn.iter().flatten().count();
        assert!((500..700).contains(&failed), "{failed} of 2000 at 30 %");
        assert!(
            FailureKind::ERRORS
                .iter()
                .all(|kind| drawn.contains(&Some(*kind)))
        );
        assert_eq!(drawn, draw(3));
        assert_ne!(drawn, draw(4));
        assert!(Failures::new(0, Vec::new(), 3).draw().is_none());
    }
}
