//! Routes requests: plans answers, hands them to the engine, wraps what comes back.

mod disaggregation;
mod media;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::api::body::{ChunkWriter, Envelope, FINGERPRINT};
use crate::api::stream::{Break, Cut, EventStream, SimBody, usage};
use crate::api::{self, Answer, ApiError, Kind, models, prompt};
use crate::args::SimConfig;
use crate::driver::EngineHandle;
use crate::engine::{EngineRequest, hash};
use crate::failure::{FailureKind, Failures};
use crate::metrics::Metrics;
use disaggregation::Disaggregation;
pub(crate) use media::Media;

/// Largest request body in bytes.
const MAX_BODY: usize = 64 << 20;

/// Time a client has to send its request body.
const BODY_TIMEOUT: Duration = Duration::from_secs(300);

/// Ports of one engine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub(crate) http: u16,
    /// 0 where nobody can ask for blocks.
    pub(crate) side_channel: u16,
}

/// State that all requests share.
pub(crate) struct Service {
    config: SimConfig,
    engine: EngineHandle,
    metrics: Arc<Metrics>,
    failures: Failures,
    disaggregation: Disaggregation,
    media: Media,
    pod: Vec<(HeaderName, HeaderValue)>,
    ready_at: Instant,
    /// Whether all processes of the group are there.
    group: watch::Receiver<bool>,
    started: u64,
    ids: u64,
    next_id: AtomicU64,
}

impl Service {
    /// A service in front of `engine`, which others know as `name`, that listens on `ports`.
    pub(crate) fn new(
        config: SimConfig,
        engine: EngineHandle,
        metrics: Arc<Metrics>,
        name: String,
        ports: Ports,
        media: Media,
        group: watch::Receiver<bool>,
    ) -> Self {
        let disaggregation = Disaggregation::new(
            config.transfer.clone(),
            name,
            ports.side_channel,
            config.engine.block_size,
            metrics.clone(),
        );
        Self {
            disaggregation,
            media,
            ready_at: Instant::now() + config.startup,
            group,
            started: unix_seconds(),
            failures: Failures::new(config.failure_rate, config.failures.clone(), config.seed),
            pod: pod_headers(ports.http),
            ids: fastrand::u64(..),
            next_id: AtomicU64::new(0),
            config,
            metrics,
            engine,
        }
    }

    /// Answers one request; an error cuts the connection.
    pub(crate) async fn handle(&self, request: Request<Incoming>) -> Result<Response<SimBody>, Cut> {
        let (head, body) = request.into_parts();
        let answered = match self.route(&head, body).await {
            Ok(response) => Ok(response),
            Err(Failed::Api(error)) => Ok(error_response(&error)),
            Err(Failed::Cut) => Err(Cut),
        };
        answered.map(|mut response| {
            self.stamp(&head.headers, response.headers_mut());
            response
        })
    }

    /// Whether the model is loaded and its group complete.
    pub(crate) fn is_ready(&self) -> bool {
        Instant::now() >= self.ready_at && *self.group.borrow()
    }

    async fn route(&self, head: &http::request::Parts, body: Incoming) -> Result<Response<SimBody>, Failed> {
        let path = head.uri.path();
        let wanted = match path {
            "/health" | "/ping" | "/metrics" | "/version" | "/v1/models" => Method::GET,
            "/v1/chat/completions" | "/v1/completions" | "/tokenize" => Method::POST,
            _ => return Ok(plain(404, "{\"detail\":\"Not Found\"}")),
        };
        if head.method != wanted {
            let mut response = plain(405, "{\"detail\":\"Method Not Allowed\"}");
            let allow = if wanted == Method::GET { "GET" } else { "POST" };
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static(allow));
            return Ok(response);
        }
        if path == "/version" {
            return Ok(plain(200, format!("{{\"version\":\"{FINGERPRINT}\"}}")));
        }
        if !self.is_ready() {
            return Err(ApiError::new(
                503,
                "ServiceUnavailableError",
                "the simulated model is still loading",
            )
            .into());
        }
        match path {
            "/health" | "/ping" => Ok(plain(200, "")),
            "/metrics" => {
                let page = self
                    .metrics
                    .render()
                    .map_err(|error| ApiError::new(500, "InternalServerError", error.to_string()))?;
                let mut response = Response::new(SimBody::full(page));
                let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
                response.headers_mut().insert(CONTENT_TYPE, kind);
                Ok(response)
            }
            "/v1/models" => Ok(plain(200, models::list(&self.config, self.started))),
            "/tokenize" => self.tokenize(&read(body).await?).map_err(Failed::from),
            "/v1/chat/completions" => self.generate(Kind::Chat, &read(body).await?).await,
            _ => self.generate(Kind::Completion, &read(body).await?).await,
        }
    }

    fn tokenize(&self, body: &[u8]) -> Result<Response<SimBody>, ApiError> {
        let mut request = api::Request::parse(body)?;
        self.adapter(request.model.as_deref())?;
        let kind = if request.messages.is_some() {
            Kind::Chat
        } else {
            Kind::Completion
        };
        request.check(kind)?;
        let prompts = prompt::prompts(&mut request, kind)?;
        self.media.check(
            &prompts
                .iter()
                .flat_map(|prompt| prompt.media.clone())
                .collect::<Vec<_>>(),
        )?;
        let [prompt] = prompts.as_slice() else {
            return Err(ApiError::field("prompt", "one prompt can be tokenized at a time"));
        };
        let body = serde_json::json!({
            "count": prompt.tokens.len(), "max_model_len": self.config.max_model_len, "tokens": &*prompt.tokens, "token_strs": null,
        });
        Ok(plain(200, body.to_string()))
    }

    async fn generate(&self, kind: Kind, body: &[u8]) -> Result<Response<SimBody>, Failed> {
        let mut request = api::Request::parse(body)?;
        let adapter = self.adapter(request.model.as_deref())?;
        request.check(kind)?;
        let model: Arc<str> = match &request.model {
            Some(model) => model.as_str().into(),
            None => self.config.models[0].clone(),
        };
        let failure = self.failures.draw();
        if let Some(error) =
            failure.and_then(|failure| failure.error(&model, &self.config.models, self.config.max_model_len))
        {
            return Err(error.into());
        }

        let prompts = prompt::prompts(&mut request, kind)?;
        let per_prompt = request.n.unwrap_or(1);
        let media: Vec<String> = prompts.iter().flat_map(|prompt| prompt.media.clone()).collect();
        let encodings = self
            .media
            .take(&media, request.ec_transfer_params.as_ref())
            .await?;
        let id = self.response_id(kind);
        let asked = self.disaggregation.asked(&mut request)?;
        let mut leg = self
            .disaggregation
            .leg(asked.as_ref(), prompts.len(), &id, failure)
            .await?;
        let hashes = || {
            let root = hash::root(adapter.as_deref(), request.cache_salt.as_deref());
            let first = prompts.first().map_or(&[][..], |prompt| &prompt.tokens);
            hash::of_prompt(first, root, self.config.engine.block_size)
        };
        self.disaggregation.pull(&mut leg, asked.as_ref(), hashes).await;
        let mut answers = Vec::with_capacity(prompts.len() * per_prompt);
        let mut jobs = Vec::with_capacity(prompts.len() * per_prompt);
        for prompt in &prompts {
            let cap = self.output_cap(kind, &request, prompt.tokens.len())?;
            for choice in 0..per_prompt {
                let answer = Answer::plan(
                    self.config.mode,
                    self.config.seed,
                    &request,
                    prompt,
                    choice as u64,
                    cap,
                );
                jobs.push(EngineRequest {
                    prompt: prompt.tokens.clone(),
                    output: answer.tokens.clone(),
                    finish: answer.finish,
                    adapter: adapter.clone(),
                    salt: request.cache_salt.as_deref().map(Arc::from),
                    slowdown: if failure == Some(FailureKind::Slow) {
                        5.0
                    } else {
                        1.0
                    },
                    import: leg.import,
                    // the answers share their prompt: one of them keeps its blocks
                    hold: leg.hold.take(),
                });
                answers.push(answer);
            }
        }
        let prefixes: Option<Vec<String>> = request.echo.then(|| {
            prompts
                .iter()
                .flat_map(|prompt| std::iter::repeat_n(prompt.echo.clone(), per_prompt))
                .collect()
        });
        let prompt_tokens: Vec<usize> = prompts.iter().map(|prompt| prompt.tokens.len()).collect();
        let envelope = Envelope {
            kind,
            id,
            created: unix_seconds(),
            model,
            options: request.stream_options.unwrap_or_default(),
        };

        let gone = || {
            ApiError::new(
                503,
                "ServiceUnavailableError",
                "the simulated engine is shutting down",
            )
        };
        let imported = self.disaggregation.follow(&mut leg);
        let ticket = self.engine.submit(jobs, imported).await.ok_or_else(gone)?;
        if request.streams() {
            let fault = match failure {
                Some(FailureKind::Reset) => {
                    Some(Break::Reset(answers[0].tokens.len().saturating_sub(1).min(3)))
                }
                Some(FailureKind::Hang) => {
                    Some(Break::Hang(answers[0].tokens.len().saturating_sub(1).min(3)))
                }
                _ => None,
            };
            let events = EventStream::new(
                ticket,
                ChunkWriter::new(&envelope),
                answers,
                prefixes,
                prompt_tokens,
                fault,
            );
            let mut response = Response::new(SimBody::Events(Box::new(events)));
            let kind = HeaderValue::from_static("text/event-stream; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, kind);
            return Ok(response);
        }
        match failure {
            Some(FailureKind::Reset) => return Err(Failed::Cut),
            Some(FailureKind::Hang) => std::future::pending::<()>().await,
            _ => {}
        }
        if !ticket.progress().finished().await {
            return Err(gone().into());
        }
        let counts = usage(&answers, &prompt_tokens, ticket.progress());
        let held = ticket.progress().held();
        let blocks = held.and_then(|held| self.disaggregation.answered(held, &envelope.id));
        Ok(plain(
            200,
            api::body::full(
                &envelope,
                &answers,
                prefixes.as_deref(),
                counts,
                blocks.as_ref(),
                encodings.as_ref(),
            ),
        ))
    }

    /// The adapter a model name means; `None` for the model itself.
    fn adapter(&self, model: Option<&str>) -> Result<Option<Arc<str>>, ApiError> {
        let Some(model) = model else { return Ok(None) };
        if self.config.models.iter().any(|name| **name == *model) {
            return Ok(None);
        }
        if self.config.adapters.iter().any(|adapter| adapter.name == model) {
            return Ok(Some(model.into()));
        }
        Err(ApiError::unknown_model(model, &self.config.models))
    }

    /// Output cap of one prompt: the client's, or 16 for completions, or what the context leaves.
    fn output_cap(&self, kind: Kind, request: &api::Request, prompt: usize) -> Result<usize, ApiError> {
        let limit = self.config.max_model_len;
        let left = limit.saturating_sub(prompt);
        let cap = match (request.cap(), kind) {
            (Some(cap), _) => cap,
            (None, Kind::Completion) => 16.min(left.max(1)),
            (None, Kind::Chat) => left.max(1),
        };
        if cap > limit {
            let message = format!(
                "max_tokens={cap} cannot be greater than max_model_len={limit}. Please request fewer output tokens. \
                 (parameter=max_tokens, value={cap})"
            );
            return Err(ApiError::field("max_tokens", message));
        }
        if cap > left {
            return Err(ApiError::context_length(limit, prompt, cap));
        }
        if request.min_tokens > cap {
            let message = format!(
                "min_tokens must be less than or equal to max_tokens={cap}, got {}.",
                request.min_tokens
            );
            return Err(ApiError::field("min_tokens", message));
        }
        Ok(cap)
    }

    fn response_id(&self, kind: Kind) -> String {
        let number = self.next_id.fetch_add(1, Ordering::Relaxed);
        let prefix = if kind == Kind::Chat { "chatcmpl" } else { "cmpl" };
        format!(
            "{prefix}-{:016x}",
            self.ids.wrapping_add(number.wrapping_mul(0x9E37_79B9_7F4A_7C15))
        )
    }

    fn stamp(&self, request: &HeaderMap, response: &mut HeaderMap) {
        for (name, value) in &self.pod {
            response.insert(name.clone(), value.clone());
        }
        let id = HeaderName::from_static("x-request-id");
        if let Some(value) = request.get(&id) {
            response.insert(id, value.clone());
        }
    }
}

enum Failed {
    Api(ApiError),
    Cut,
}

impl From<ApiError> for Failed {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

async fn read(body: Incoming) -> Result<Bytes, ApiError> {
    match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.downcast_ref::<LengthLimitError>().is_some() => Err(ApiError::new(
            413,
            "BadRequestError",
            format!("the request body is larger than {MAX_BODY} bytes"),
        )),
        Ok(Err(error)) => Err(ApiError::bad_request(format!(
            "the request body could not be read: {error}"
        ))),
        Err(_) => Err(ApiError::new(
            408,
            "RequestTimeout",
            "the request body did not arrive in time",
        )),
    }
}

pub(crate) fn plain(status: u16, body: impl Into<Bytes>) -> Response<SimBody> {
    let body = body.into();
    let json = !body.is_empty();
    let mut response = Response::new(SimBody::full(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if json {
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    response
}

pub(crate) fn error_response(error: &ApiError) -> Response<SimBody> {
    plain(error.status, error.body())
}

/// `x-inference-*` headers as llm-d-inference-sim sends them, from the pod's environment.
fn pod_headers(port: u16) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = vec![(
        HeaderName::from_static("x-inference-port"),
        HeaderValue::from(port),
    )];
    let pod = std::env::var("POD_NAME").or_else(|_| std::env::var("POD_IP"));
    for (name, value) in [
        ("x-inference-pod", pod),
        ("x-inference-namespace", std::env::var("POD_NAMESPACE")),
    ] {
        if let Some(value) = value.ok().and_then(|value| HeaderValue::from_str(&value).ok()) {
            headers.push((HeaderName::from_static(name), value));
        }
    }
    headers
}

fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}
