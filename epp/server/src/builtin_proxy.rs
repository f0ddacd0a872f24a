//! The built-in HTTP proxy: the same picker without an Envoy in front.
//!
//! Every path goes to a picked endpoint, unread ones (`GET /v1/models`, …) included; `/health` is
//! answered here, and so is the model list where endpoints differ in it. A rejection becomes an OpenAI-shaped JSON error with the text and the drop-reason
//! header that ext-proc would give. An engine that cannot be reached, or that dies before the first
//! byte of its answer, is replaced by another one and left out until it is seen alive. A stream whose
//! engine dies later is continued by another one where its text is all there is to continue.

pub mod access_log;
mod api_key;
mod continuation;
pub mod engines;
mod flight;
mod models;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use http::header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use http::{HeaderMap, Method, StatusCode, request};
use llmd_epp_api::Headers;
use llmd_epp_core::Epp;
use llmd_openai::header;
use llmd_proxy::{AccessLog, Limits, LocalReply, Route, ServeError, Server, TargetProtocol};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use api_key::{ApiKeyError, ApiKeys};
pub use continuation::Continuations;
use flight::RequestFlight;

use crate::datalayer::DataLayer;
use crate::spans;
use crate::waiting::WaitingRoom;

const HEALTH: &str = "/health";
const MODELS: &str = "/v1/models";

/// What the proxy serves with.
pub struct Options {
    /// Clients must present one of these as a Bearer token; `None` lets everybody in.
    pub api_keys: Option<ApiKeys>,
    /// Continues streams whose engine died on another one; `None` ends them with an error event.
    pub continuations: Option<Continuations>,
    /// Where requests wait while the pool is empty; `None` refuses them.
    pub waiting: Option<Arc<WaitingRoom>>,
    /// Bounds and deadlines.
    pub limits: Limits,
    /// TLS towards clients; `None` serves plain HTTP.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Passes on what clients say in `Forwarded` and `X-Forwarded-*`.
    pub trusts_forwarded: bool,
    /// How engines are spoken with.
    pub engines: TargetProtocol,
    /// Who is told about each request.
    pub access_log: Option<AccessLog>,
    /// `--tracing`: each request is a span, and engines are told its context.
    pub tracing: bool,
    /// Whether `/health` answers 200.
    pub is_ready: Arc<dyn Fn() -> bool + Send + Sync>,
    /// From then on answers close their connections; requests are taken all the same.
    pub closing: CancellationToken,
}

/// Serves on `listener` until `shutdown`, then drains.
pub async fn serve(
    listener: TcpListener,
    epp: Arc<Epp>,
    layer: DataLayer,
    options: Options,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let Options {
        api_keys,
        continuations,
        waiting,
        limits,
        tls,
        trusts_forwarded,
        engines,
        access_log,
        tracing,
        is_ready,
        closing,
    } = options;
    let address = listener.local_addr().map_err(ServeError::Listener)?;
    if api_keys.is_none() && !address.ip().is_loopback() {
        tracing::warn!(%address, "the proxy is reachable from outside and takes everybody; set --proxy-api-key-file");
    }
    let route = EppRoute(Arc::new(Shared {
        epp,
        layer,
        api_keys,
        continuations,
        tracing,
        waiting,
        is_ready,
    }));
    let mut server = Server::new(route, limits)
        .trusting_forwarded_headers(trusts_forwarded)
        .reaching_targets_by(engines)
        .closing_connections_on(closing);
    if let Some(tls) = tls {
        server = server.with_tls(tls);
    }
    if let Some(log) = access_log {
        server = server.logging_to(log);
    }
    server.serve(listener, shutdown).await
}

struct Shared {
    epp: Arc<Epp>,
    layer: DataLayer,
    api_keys: Option<ApiKeys>,
    continuations: Option<Continuations>,
    tracing: bool,
    waiting: Option<Arc<WaitingRoom>>,
    is_ready: Arc<dyn Fn() -> bool + Send + Sync>,
}

#[derive(Clone)]
struct EppRoute(Arc<Shared>);

impl Route for EppRoute {
    type Flight = RequestFlight;

    fn begin(&self, head: &request::Parts, _peer: SocketAddr) -> Result<RequestFlight, LocalReply> {
        if head.uri.path() == HEALTH && matches!(head.method, Method::GET | Method::HEAD) {
            return Err(self.health());
        }
        if let Some(keys) = &self.0.api_keys {
            authorize(keys, &head.headers)?;
        }
        if head.uri.path() == MODELS
            && head.method == Method::GET
            && let Some(page) = models::list(&self.0.layer.routable())
        {
            return Err(LocalReply::json(StatusCode::OK, page));
        }
        let request_id = match head
            .headers
            .get(header::REQUEST_ID)
            .and_then(|id| id.to_str().ok())
        {
            Some(id) if !id.is_empty() => id.into(),
            _ => uuid::Uuid::new_v4().to_string().into(),
        };
        let headers = headers(head);
        let span = self.0.tracing.then(|| spans::request(&headers));
        let exchange = self.0.epp.open(Instant::now(), headers, Arc::clone(&request_id));
        Ok(RequestFlight::new(
            exchange,
            span,
            self.0.layer.clone(),
            request_id,
            self.0.api_keys.is_some(),
            self.0.continuations.clone(),
            self.0.waiting.clone(),
        ))
    }
}

impl EppRoute {
    fn health(&self) -> LocalReply {
        if (self.0.is_ready)() {
            return LocalReply::json(StatusCode::OK, r#"{"status":"ok"}"#);
        }
        LocalReply::error(StatusCode::SERVICE_UNAVAILABLE, "the router is not ready").retry_after(1)
    }
}

fn authorize(keys: &ApiKeys, headers: &HeaderMap) -> Result<(), LocalReply> {
    if keys.accept(headers.get(AUTHORIZATION).map(HeaderValue::as_bytes)) {
        return Ok(());
    }
    let message = "a valid API key is required: send it as 'Authorization: Bearer KEY'";
    let reply = LocalReply::error(StatusCode::UNAUTHORIZED, message);
    Err(reply.with_header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")))
}

/// The head as ext-proc would show it: pseudo headers first.
fn headers(head: &request::Parts) -> Headers {
    let mut headers = Headers::default();
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    headers.push(":method", head.method.as_str().as_bytes());
    headers.push(":path", path.as_bytes());
    for (name, value) in &head.headers {
        headers.push(name.as_str(), value.as_bytes());
    }
    headers
}
