//! Who may read metrics and debug pages: asked of the API server, remembered briefly.
//!
//! The bearer token is checked by a `TokenReview`, then a `SubjectAccessReview` asks whether its user may
//! `get` the path, as controller-runtime's filter does: a `ClusterRole` with `nonResourceURLs: [/metrics]`
//! lets a reader in.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::{Api, Client};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use crate::kubernetes::cause::{Cause, innermost};

/// How long an allowed reader is not asked about again.
const ALLOWED: Duration = Duration::from_secs(60);
/// How long a denied one is not.
const DENIED: Duration = Duration::from_secs(10);
/// Verdicts remembered; beyond it all are forgotten.
const REMEMBERED: usize = 1024;
/// Reviews at a time: nobody floods the API server through this port.
const REVIEWS: usize = 4;
/// Longest wait for a review, its turn included.
const REVIEW: Duration = Duration::from_secs(10);

/// The checks; clones share what they remember.
#[derive(Clone)]
pub struct MetricsAuth(Arc<Shared>);

struct Shared {
    client: Client,
    verdicts: Mutex<HashMap<Key, (Verdict, Instant)>>,
    turns: Semaphore,
    problem: Mutex<Option<String>>,
}

/// Digest of token, verb and path: tokens are not kept.
type Key = [u8; 32];

#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Allowed,
    /// The user may not.
    Forbidden(Arc<str>),
    /// Nobody's token.
    Unauthorized,
}

impl Verdict {
    fn lifetime(&self) -> Duration {
        if *self == Self::Allowed { ALLOWED } else { DENIED }
    }
}

impl MetricsAuth {
    /// Asks through `client`, which needs `create` on both review kinds.
    pub fn new(client: Client) -> Self {
        Self(Arc::new(Shared {
            client,
            verdicts: Mutex::default(),
            turns: Semaphore::new(REVIEWS),
            problem: Mutex::default(),
        }))
    }
}

/// The middleware for protected routes.
pub async fn guard(State(auth): State<MetricsAuth>, request: Request, next: Next) -> Response {
    let token = request.headers().get(header::AUTHORIZATION);
    let token = token.and_then(|value| value.to_str().ok()).and_then(bearer);
    let Some(token) = token else {
        return unauthorized();
    };
    let verb = request.method().as_str().to_ascii_lowercase();
    let path = request.uri().path();
    match auth.0.verdict(token, &verb, path).await {
        Ok(Verdict::Allowed) => next.run(request).await,
        Ok(Verdict::Forbidden(user)) => {
            let text = format!(
                "user '{user}' may not {verb} {path}: allow it as nonResourceURLs in a ClusterRole\n"
            );
            (StatusCode::FORBIDDEN, text).into_response()
        }
        Ok(Verdict::Unauthorized) => unauthorized(),
        Err(problem) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{problem}\n")).into_response(),
    }
}

fn unauthorized() -> Response {
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
    let text = "give the bearer token of a ServiceAccount that may read this page\n";
    (StatusCode::UNAUTHORIZED, challenge, text).into_response()
}

/// The token of `Bearer TOKEN`; the scheme's case does not count.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

impl Shared {
    async fn verdict(&self, token: &str, verb: &str, path: &str) -> Result<Verdict, String> {
        let key = key(token, verb, path);
        if let Some(known) = self.known(&key) {
            return Ok(known);
        }
        let reviewed = async {
            let _turn = self.turns.acquire().await.ok();
            // Somebody before us may have asked the same.
            match self.known(&key) {
                Some(known) => Ok(known),
                None => self.review(token, verb, path).await,
            }
        };
        let problem = match tokio::time::timeout(REVIEW, reviewed).await {
            Ok(Ok(verdict)) => {
                self.remember(key, &verdict);
                return Ok(verdict);
            }
            Ok(Err(error)) => problem(&error),
            Err(_) => "the API server does not answer who may read this page".to_owned(),
        };
        let mut last = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref() != Some(&problem) {
            tracing::error!("{problem}");
            *last = Some(problem.clone());
        }
        Err(problem)
    }

    fn known(&self, key: &Key) -> Option<Verdict> {
        let verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        let (verdict, since) = verdicts.get(key)?;
        (since.elapsed() < verdict.lifetime()).then(|| verdict.clone())
    }

    fn remember(&self, key: Key, verdict: &Verdict) {
        let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        if verdicts.len() >= REMEMBERED {
            verdicts.clear();
        }
        verdicts.insert(key, (verdict.clone(), Instant::now()));
    }

    async fn review(&self, token: &str, verb: &str, path: &str) -> Result<Verdict, kube::Error> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                ..TokenReviewSpec::default()
            },
            ..TokenReview::default()
        };
        let reviews: Api<TokenReview> = Api::all(self.client.clone());
        let status = reviews.create(&PostParams::default(), &review).await?.status;
        let status = status.filter(|status| status.authenticated == Some(true));
        let Some(user) = status.and_then(|status| status.user) else {
            return Ok(Verdict::Unauthorized);
        };
        let name = user.username.clone().unwrap_or_default();
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: user.username,
                groups: user.groups,
                uid: user.uid,
                extra: user.extra,
                non_resource_attributes: Some(NonResourceAttributes {
                    path: Some(path.to_owned()),
                    verb: Some(verb.to_owned()),
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let status = reviews.create(&PostParams::default(), &review).await?.status;
        if status.is_some_and(|status| status.allowed) {
            Ok(Verdict::Allowed)
        } else {
            Ok(Verdict::Forbidden(name.into()))
        }
    }
}

fn key(token: &str, verb: &str, path: &str) -> Key {
    let mut digest = Sha256::new();
    for part in [token, verb, path] {
        digest.update(part.as_bytes());
        digest.update([0]);
    }
    digest.finalize().into()
}

fn problem(error: &kube::Error) -> String {
    match Cause::of(error) {
        Cause::Forbidden => "the picker may not ask who may read this page: allow create on tokenreviews.authentication.k8s.io and subjectaccessreviews.authorization.k8s.io in a ClusterRole, or set --metrics-endpoint-auth=false".to_owned(),
        _ => format!("the API server cannot be asked who may read this page: {}", innermost(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bearer_token_counts() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bearer  abc "), Some("abc"));
        for wrong in ["abc", "Basic abc", "Bearer ", "Bearer"] {
            assert_eq!(bearer(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_verdict_is_for_one_token_verb_and_path() {
        let one = key("a", "get", "/metrics");
        assert_ne!(one, key("b", "get", "/metrics"));
        assert_ne!(one, key("a", "post", "/metrics"));
        assert_ne!(one, key("a", "get", "/debug/endpoints"));
        assert_ne!(key("ab", "c", ""), key("a", "bc", ""));
    }
}
