//! The HTTP server for operators: metrics, liveness and the role's debug routes.

use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::{Encoder, Registry, TextEncoder};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::tls_listener::TlsListener;

/// Serves `/metrics`, `/healthz` and `routes` until `shutdown`.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    registry: Registry,
    routes: Router,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    serve_pages(listener, pages(registry, routes), shutdown).await
}

/// `/metrics` and `routes`: what a role may put behind an authentication.
pub fn pages(registry: Registry, routes: Router) -> Router {
    Router::new()
        .route("/metrics", get(move || std::future::ready(metrics(&registry))))
        .merge(routes)
}

/// Serves `pages` and, open to everybody, `/healthz` until `shutdown`.
///
/// # Errors
/// When the listener fails.
pub async fn serve_pages(
    listener: TcpListener,
    pages: Router,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let router = pages.route("/healthz", get(|| std::future::ready("ok\n")));
    axum::serve(listener, router)
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
}

/// As [`serve_pages`], over TLS.
///
/// # Errors
/// When the listener fails.
pub async fn serve_pages_over_tls(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    pages: Router,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let router = pages.route("/healthz", get(|| std::future::ready("ok\n")));
    let listener = TlsListener::start(listener, tls, shutdown.clone())?;
    axum::serve(listener, router)
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
}

/// One page in the Prometheus text format, families sorted by name.
fn metrics(registry: &Registry) -> Response {
    let encoder = TextEncoder::new();
    let mut page = Vec::new();
    match encoder.encode(&registry.gather(), &mut page) {
        Ok(()) => ([(header::CONTENT_TYPE, encoder.format_type().to_owned())], page).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
