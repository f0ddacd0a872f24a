//! Asks a vLLM for the tokens of prompts (`/v1/…/render`), the render backend of `token-producer`.
//!
//! HTTP/1.1, 16 idle connections per host for 90 s, as upstream. A request never fails because of it: without an answer in
//! time its prompt is taken as it is. After a time-out or a failed connection nobody is asked for a second, so that a
//! renderer that is gone does not hold every request up.

mod answer;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use llmd_epp_api::TokenizedPrompt;
use llmd_epp_core::exchange::{Render, RenderAsk, Rendering};

const IDLE_PER_HOST: usize = 16;
const IDLE: Duration = Duration::from_secs(90);
/// Longest answer: some ten bytes for each of several million tokens.
const MOST_BYTES: usize = 64 << 20;
/// Most of an error's body that is told.
const ERROR_BYTES: usize = 1024;
/// How long nobody is asked after there was no answer.
const REST: Duration = Duration::from_secs(1);

/// Why there are no tokens.
#[derive(Debug, thiserror::Error)]
enum RenderError {
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    #[error("{0}")]
    Unreachable(#[from] hyper_util::client::legacy::Error),
    #[error("{0}")]
    Request(#[from] http::Error),
    #[error("cannot read the answer: {0}")]
    Read(Box<dyn std::error::Error + Send + Sync>),
    #[error("status {status}: {body}")]
    Status { status: http::StatusCode, body: String },
    #[error("cannot make sense of the answer: {0}")]
    Answer(#[from] answer::AnswerError),
}

impl RenderError {
    /// Whether the next one would wait for nothing too.
    fn is_silence(&self) -> bool {
        matches!(self, Self::TimedOut(_) | Self::Unreachable(_))
    }
}

/// Asks; shared by all requests. The wait for an answer is the caller's task: dropping it ends the question.
pub struct RenderClient {
    client: Client<HttpConnector, Full<Bytes>>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    resting_until: Mutex<Option<Instant>>,
    /// The last question had no answer; said once.
    is_failing: AtomicBool,
}

impl Default for RenderClient {
    fn default() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_PER_HOST)
            .build(connector);
        Self {
            client,
            state: Arc::default(),
        }
    }
}

impl Render for RenderClient {
    fn render(&self, ask: RenderAsk) -> Rendering {
        let (client, state) = (self.client.clone(), Arc::clone(&self.state));
        Box::pin(async move {
            if state.is_resting(Instant::now()) {
                return None;
            }
            let backend = Arc::clone(&ask.backend);
            let limit = if ask.has_media {
                backend.media_timeout
            } else {
                backend.timeout
            };
            let outcome = tokio::time::timeout(limit, tokens(client, ask)).await;
            let outcome = outcome.unwrap_or(Err(RenderError::TimedOut(limit)));
            state.note(&outcome, &backend.url);
            outcome.ok()
        })
    }
}

impl State {
    fn is_resting(&self, now: Instant) -> bool {
        let until = self.resting_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| now < until)
    }

    fn note(&self, outcome: &Result<TokenizedPrompt, RenderError>, url: &str) {
        let Err(error) = outcome else {
            if self.is_failing.swap(false, Ordering::Relaxed) {
                tracing::info!(url, "the renderer answers again");
            }
            return;
        };
        if error.is_silence() {
            let mut until = self.resting_until.lock().unwrap_or_else(PoisonError::into_inner);
            *until = Some(Instant::now() + REST);
        }
        if self.is_failing.swap(true, Ordering::Relaxed) {
            tracing::debug!(url, %error, "no tokens from the renderer");
        } else {
            tracing::warn!(url, %error, "no tokens from the renderer, prompts are taken as they are");
        }
    }
}

async fn tokens(
    client: Client<HttpConnector, Full<Bytes>>,
    ask: RenderAsk,
) -> Result<TokenizedPrompt, RenderError> {
    let body = match <[Bytes; 1]>::try_from(ask.body) {
        Ok([whole]) => whole,
        Err(chunks) => chunks.concat().into(),
    };
    let request = http::Request::post(format!("{}{}", ask.backend.url, ask.path))
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(body))?;
    let (head, answer) = client.request(request).await?.into_parts();
    let answer = Limited::new(answer, MOST_BYTES).collect().await;
    let answer = answer.map_err(RenderError::Read)?.to_bytes();
    if !head.status.is_success() {
        return Err(RenderError::Status {
            status: head.status,
            body: String::from_utf8_lossy(&answer[..answer.len().min(ERROR_BYTES)]).into_owned(),
        });
    }
    Ok(answer::read(&answer, ask.prompts)?)
}
