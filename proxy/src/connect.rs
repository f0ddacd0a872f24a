//! One new connection to a target, over HTTP/1.1 or HTTP/2, with or without TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsConnector, TlsStream};

use crate::body::TargetBody;
use crate::connection::BUFFER_BYTES;
use crate::transport::Transport;

/// Pause between two pings of an HTTP/2 target that has streams open, and the longest wait for its answer.
const PING: Duration = Duration::from_secs(30);

/// How targets are spoken with.
#[derive(Clone)]
pub struct TargetProtocol {
    /// Whether targets speak HTTP/2 from the first byte; asked for each new connection. With TLS, ALPN says it.
    pub speaks_http2: Arc<dyn Fn() -> bool + Send + Sync>,
    /// TLS towards targets; `None` speaks plainly.
    pub tls: Option<TargetTls>,
}

/// TLS towards targets.
#[derive(Clone)]
pub struct TargetTls {
    /// What is trusted, and the protocols that are offered by ALPN.
    pub config: Arc<rustls::ClientConfig>,
    /// The name in targets' certificates; `None` is the address.
    pub server_name: Option<ServerName<'static>>,
}

impl Default for TargetProtocol {
    fn default() -> Self {
        Self {
            speaks_http2: Arc::new(|| false),
            tls: None,
        }
    }
}

/// Why a target could not be reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("no connection within {0:?}")]
    Deadline(Duration),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Http(#[from] hyper::Error),
}

/// The sending end of a new connection.
pub(crate) enum Opened {
    Http1(http1::SendRequest<TargetBody>),
    Http2(http2::SendRequest<TargetBody>),
}

/// Opens a connection and drives it in a task that ends with the connection. The deadline is for TCP, TLS and the
/// first exchange of HTTP/2 together.
pub(crate) async fn connect(
    target: SocketAddr,
    protocol: &TargetProtocol,
    deadline: Duration,
) -> Result<Opened, ConnectError> {
    timeout(deadline, open(target, protocol))
        .await
        .map_err(|_| ConnectError::Deadline(deadline))?
}

async fn open(target: SocketAddr, protocol: &TargetProtocol) -> Result<Opened, ConnectError> {
    let stream = TcpStream::connect(target).await?;
    stream.set_nodelay(true)?;
    let (stream, is_http2) = match &protocol.tls {
        None => (Transport::Plain(stream), (protocol.speaks_http2)()),
        Some(tls) => {
            let name = tls.server_name.clone();
            let name = name.unwrap_or_else(|| ServerName::from(target.ip()));
            let stream = TlsConnector::from(Arc::clone(&tls.config))
                .connect(name, stream)
                .await?;
            let stream = Transport::Tls(Box::new(TlsStream::Client(stream)));
            let is_http2 = stream.has_agreed_on_http2();
            (stream, is_http2)
        }
    };
    let stream = TokioIo::new(stream);
    if is_http2 {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING)
            .handshake(stream)
            .await?;
        tokio::spawn(drive(target, connection));
        return Ok(Opened::Http2(sender));
    }
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(BUFFER_BYTES)
        .handshake(stream)
        .await?;
    tokio::spawn(drive(target, connection.with_upgrades()));
    Ok(Opened::Http1(sender))
}

async fn drive(target: SocketAddr, connection: impl Future<Output = hyper::Result<()>>) {
    if let Err(error) = connection.await {
        tracing::debug!(%target, %error, "connection to a target ended");
    }
}
