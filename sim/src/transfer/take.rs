//! The reading side: claims blocks of another engine and says when they have been read.

use std::io;
use std::time::Duration;

use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::params::Source;
use super::wire::{self, Ask, Reply};

/// Time to reach the other engine, and for each message.
const WITHIN: Duration = Duration::from_secs(10);

/// Why blocks cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The engine is not there, or says nothing.
    #[error("the prefill engine {host}:{port} cannot be asked for its KV blocks: {source}")]
    Unreachable {
        /// Its host.
        host: String,
        /// Its port.
        port: u16,
        /// Why.
        source: io::Error,
    },
    /// It has nothing under that name.
    #[error("the transfer {request} of engine {engine} is unknown or expired")]
    Unknown {
        /// Request that was named.
        request: String,
        /// Engine that was named.
        engine: String,
    },
    /// It has been started anew, or is another one.
    #[error("engine {wanted} is gone; {found} listens in its place")]
    OtherEngine {
        /// Engine that was named.
        wanted: String,
        /// Engine that answered.
        found: String,
    },
    /// It divides its cache otherwise.
    #[error("KV layouts differ: {theirs} tokens per block there, {ours} here; set one --block-size")]
    BlockSize {
        /// There.
        theirs: usize,
        /// Here.
        ours: usize,
    },
    /// It is of another revision.
    #[error("revisions differ: {theirs} prefilled, {ours} decodes; a router must pair equal ones only")]
    Revision {
        /// There.
        theirs: String,
        /// Here.
        ours: String,
    },
    /// The blocks there are others than those the request names.
    #[error("the transfer {request} holds other blocks than remote_block_ids names")]
    Blocks {
        /// Request that was named.
        request: String,
    },
}

/// The right to read blocks. While it lives the other engine keeps them.
#[derive(Debug)]
pub struct Claim {
    stream: BufReader<TcpStream>,
    lease: Duration,
    /// Tokens that can be read.
    pub tokens: usize,
}

/// Asks the engine that `source` names.
pub async fn claim(source: &Source, block_size: usize, revision: Option<&str>) -> Result<Claim, ClaimError> {
    let unreachable = |error| ClaimError::Unreachable {
        host: source.host.clone(),
        port: source.port,
        source: error,
    };
    let (stream, reply) = ask(source, block_size, revision).await.map_err(unreachable)?;
    match reply {
        Reply::Held {
            blocks,
            tokens,
            lease_ms,
        } => {
            if source.blocks.as_ref().is_some_and(|named| *named != blocks) {
                return Err(ClaimError::Blocks {
                    request: source.request.clone(),
                });
            }
            Ok(Claim {
                stream,
                lease: Duration::from_millis(lease_ms.max(1)),
                tokens: source.tokens.map_or(tokens, |named| named.min(tokens)),
            })
        }
        Reply::Unknown => Err(ClaimError::Unknown {
            request: source.request.clone(),
            engine: source.engine.clone().unwrap_or_else(|| source.host.clone()),
        }),
        // An answer to what was not asked.
        Reply::Prefix { .. } => Err(unreachable(io::ErrorKind::InvalidData.into())),
        Reply::OtherEngine { engine } => Err(ClaimError::OtherEngine {
            wanted: source.engine.clone().unwrap_or_default(),
            found: engine,
        }),
        Reply::BlockSize { block_size: theirs } => Err(ClaimError::BlockSize {
            theirs,
            ours: block_size,
        }),
        Reply::Revision { revision: theirs } => Err(ClaimError::Revision {
            theirs,
            ours: revision.unwrap_or_default().to_owned(),
        }),
    }
}

async fn ask(
    source: &Source,
    block_size: usize,
    revision: Option<&str>,
) -> io::Result<(BufReader<TcpStream>, Reply)> {
    let host = source.host.trim_matches(['[', ']']);
    let stream = tokio::time::timeout(WITHIN, TcpStream::connect((host, source.port))).await??;
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    let ask = Ask::Claim {
        engine: source.engine.clone(),
        key: source.request.clone(),
        block_size,
        revision: revision.map(str::to_owned),
        wait_ms: u64::try_from(source.wait.as_millis()).unwrap_or(u64::MAX),
    };
    wire::write(&mut stream, &ask, WITHIN).await?;
    let reply = wire::read(&mut stream, WITHIN + source.wait).await?;
    Ok((stream, reply))
}

impl Claim {
    /// Gives signs of life until `read` says that the blocks are here, and reports whether they came; a dropped
    /// `read` gives the right up.
    pub async fn keep(mut self, mut read: oneshot::Receiver<()>) -> bool {
        let mut beats = tokio::time::interval(self.lease / 3);
        beats.tick().await;
        loop {
            let message = tokio::select! {
                read = &mut read => match read {
                    Ok(()) => Ask::Done,
                    Err(_) => return false,
                },
                _ = beats.tick() => Ask::Beat,
            };
            let last = message == Ask::Done;
            if let Err(error) = wire::write(&mut self.stream, &message, WITHIN).await {
                tracing::debug!(%error, "the engine whose blocks are read went away");
                return false;
            }
            if last {
                return true;
            }
        }
    }
}
