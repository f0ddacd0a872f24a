//! gRPC over HTTP/2: a listener, TLS or not, and the two services behind it.
//!
//! Connections are served by hyper directly. Messages of ext-proc calls are framed here; those of other calls, and of
//! calls that compress them, by tonic.

mod answers;
mod messages;
mod pieces;
mod reply;
mod threads;

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, Either};
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tonic::codec::CompressionEncoding;
use tonic::server::{Grpc, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use answers::Answers;
pub use messages::Messages;
use reply::Reply;
pub use threads::StreamThreads;

use crate::eds::{self, Eds};
use crate::extproc::{self, ExtProc, ProcessStream};
use crate::health::{
    self, Health, HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
};

/// Flow-control window of a stream, in bytes: how much of a body may be in flight.
const STREAM_WINDOW: u32 = 1 << 20;
/// Flow-control window of a connection; Envoy carries all requests over few connections.
const CONNECTION_WINDOW: u32 = 32 << 20;
/// Each LLM request holds a stream for its whole life; Envoy's chart allows 40,000.
const MAX_STREAMS: u32 = 100_000;
/// Clients abort in bursts, and Envoy passes each abort on as a reset.
const MAX_PENDING_RESETS: usize = 4096;
/// Longest TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// gRPC message limits in bytes.
#[derive(Clone, Copy, Debug)]
pub struct MessageLimits {
    /// `--grpc-max-recv-msg-size`; gRPC's default is 4 MiB.
    pub receive: usize,
    /// `--grpc-max-send-msg-size`.
    pub send: usize,
}

impl Default for MessageLimits {
    fn default() -> Self {
        Self {
            receive: 4 << 20,
            send: usize::MAX,
        }
    }
}

/// What one listener answers.
#[derive(Clone)]
pub struct Services {
    /// `ext_proc`, where this listener has it.
    pub ext_proc: Option<Arc<ExtProc>>,
    /// Envoy's endpoint discovery, where this listener has it.
    pub eds: Option<Eds>,
    /// Health, where this listener has it.
    pub health: Option<Health>,
    /// Message limits.
    pub limits: MessageLimits,
}

/// Serves `listener` until `stop`, then lets open streams finish for at most `patience`. Connections are served on
/// `threads`, or on the caller's runtime.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    services: Services,
    threads: Option<StreamThreads>,
    stop: CancellationToken,
    patience: Duration,
) {
    let graceful = GracefulShutdown::new();
    let tls = tls.map(TlsAcceptor::from);
    let abort = CancellationToken::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a gRPC connection");
                // Out of file descriptors: give the open ones time to close.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let connection = Connection {
            services: services.clone(),
            watcher: graceful.watcher(),
            abort: abort.clone(),
        };
        match threads.as_ref().and_then(StreamThreads::next) {
            Some(thread) => match stream.into_std() {
                Ok(stream) => drop(thread.spawn(connection.run_here(stream, tls.clone()))),
                Err(error) => tracing::warn!(%error, "cannot move a gRPC connection to its thread"),
            },
            None => drop(tokio::spawn(connection.run(stream, tls.clone()))),
        }
    }
    drop(listener);
    if tokio::time::timeout(patience, graceful.shutdown()).await.is_err() {
        tracing::warn!("gRPC streams were still open at the end of the drain and are cut");
    }
    abort.cancel();
}

struct Connection {
    services: Services,
    watcher: hyper_util::server::graceful::Watcher,
    abort: CancellationToken,
}

impl Connection {
    /// Runs a connection that was accepted on another runtime.
    async fn run_here(self, stream: std::net::TcpStream, tls: Option<TlsAcceptor>) {
        match TcpStream::from_std(stream) {
            Ok(stream) => self.run(stream, tls).await,
            Err(error) => tracing::warn!(%error, "cannot serve a gRPC connection"),
        }
    }

    async fn run(self, stream: TcpStream, tls: Option<TlsAcceptor>) {
        // Answers are small and wanted at once.
        let _ = stream.set_nodelay(true);
        let abort = self.abort.clone();
        let served = async {
            match tls {
                None => self.serve(stream).await,
                Some(acceptor) => match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => self.serve(stream).await,
                    Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
                    Err(_) => tracing::debug!("TLS handshake took too long"),
                },
            }
        };
        tokio::select! {
            () = served => {}
            () = abort.cancelled() => {}
        }
    }

    async fn serve(self, io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let services = Arc::new(self.services);
        let service = service_fn(move |request| services.answer(request));
        let mut http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_streams(MAX_STREAMS)
            .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
            .max_local_error_reset_streams(None);
        let connection = http2.serve_connection(TokioIo::new(io), service);
        if let Err(error) = self.watcher.watch(connection).await {
            tracing::debug!(%error, "gRPC connection ended");
        }
    }
}

/// Ext-proc calls are answered at once, without a future of their own.
type Answering = Either<
    Ready<Result<http::Response<Reply>, Infallible>>,
    BoxFuture<'static, Result<http::Response<Reply>, Infallible>>,
>;

impl Services {
    fn answer(self: &Arc<Self>, request: http::Request<Incoming>) -> Answering {
        if request.uri().path() == extproc::PROCESS
            && let Some(shared) = &self.ext_proc
            && request.headers().get("grpc-encoding").is_none()
        {
            return Either::Left(ready(Ok(process(shared, request, self.limits))));
        }
        let services = Arc::clone(self);
        Either::Right(Box::pin(async move {
            Ok(services.answer_by_tonic(request).await.map(Reply::Tonic))
        }))
    }

    async fn answer_by_tonic(&self, request: http::Request<Incoming>) -> http::Response<tonic::body::Body> {
        let limits = self.limits;
        let path = request.uri().path();
        if path == extproc::PROCESS
            && let Some(shared) = &self.ext_proc
        {
            let codec =
                ProstCodec::<extproc::proto::ProcessingResponse, extproc::proto::ProcessingRequest>::new();
            return grpc(codec, &request, limits)
                .streaming(extproc::Process(Arc::clone(shared)), request)
                .await;
        }
        if path == eds::STREAM
            && let Some(eds) = &self.eds
        {
            let codec = ProstCodec::<eds::proto::DiscoveryResponse, eds::proto::DiscoveryRequest>::new();
            return grpc(codec, &request, limits)
                .streaming(eds.clone(), request)
                .await;
        }
        if let Some(health) = &self.health {
            if path == health::CHECK {
                let codec = ProstCodec::<HealthCheckResponse, HealthCheckRequest>::new();
                return grpc(codec, &request, limits)
                    .unary(Check(health.clone()), request)
                    .await;
            }
            if path == health::LIST {
                let codec = ProstCodec::<HealthListResponse, HealthListRequest>::new();
                return grpc(codec, &request, limits)
                    .unary(List(health.clone()), request)
                    .await;
            }
        }
        Status::unimplemented(format!("unknown method {path}")).into_http()
    }
}

/// Starts an ext-proc call whose messages are not compressed.
fn process(
    shared: &Arc<ExtProc>,
    request: http::Request<Incoming>,
    limits: MessageLimits,
) -> http::Response<Reply> {
    let messages = Messages::new(request.into_body(), limits.receive);
    let stream = ProcessStream::new(Arc::clone(shared), messages);
    let mut response = http::Response::new(Reply::Process(Answers::new(stream, limits.send)));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// As gRPC for Go does, answers are compressed if and only if the request is.
fn grpc<E, D>(
    codec: ProstCodec<E, D>,
    request: &http::Request<Incoming>,
    limits: MessageLimits,
) -> Grpc<ProstCodec<E, D>>
where
    E: prost::Message + Send + 'static,
    D: prost::Message + Default + Send + 'static,
{
    let grpc = Grpc::new(codec)
        .accept_compressed(CompressionEncoding::Gzip)
        .apply_max_message_size_config(Some(limits.receive), Some(limits.send));
    if request
        .headers()
        .get("grpc-encoding")
        .is_some_and(|encoding| encoding == "gzip")
    {
        return grpc.send_compressed(CompressionEncoding::Gzip);
    }
    grpc
}

struct Check(Health);

impl UnaryService<HealthCheckRequest> for Check {
    type Response = HealthCheckResponse;
    type Future = Ready<Result<Response<HealthCheckResponse>, Status>>;

    fn call(&mut self, request: Request<HealthCheckRequest>) -> Self::Future {
        ready(Ok(Response::new(HealthCheckResponse {
            status: self.0.check(&request.get_ref().service).into(),
        })))
    }
}

struct List(Health);

impl UnaryService<HealthListRequest> for List {
    type Response = HealthListResponse;
    type Future = Ready<Result<Response<HealthListResponse>, Status>>;

    fn call(&mut self, _: Request<HealthListRequest>) -> Self::Future {
        ready(Ok(Response::new(self.0.list())))
    }
}
