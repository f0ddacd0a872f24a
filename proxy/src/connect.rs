//! One new connection to a target.

use std::net::SocketAddr;
use std::time::Duration;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::body::TargetBody;

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

/// Opens a connection and drives it in a task that ends with the connection.
pub(crate) async fn connect(
    target: SocketAddr,
    deadline: Duration,
) -> Result<SendRequest<TargetBody>, ConnectError> {
    let stream = tokio::time::timeout(deadline, TcpStream::connect(target))
        .await
        .map_err(|_| ConnectError::Deadline(deadline))??;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%target, %error, "connection to a target ended");
        }
    });
    Ok(sender)
}
