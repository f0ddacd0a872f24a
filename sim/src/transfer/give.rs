//! The holding side: a port on which other engines claim blocks.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::BufReader;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::wire::{self, Ask, Reply};
use crate::driver::{EngineHandle, HeldBlocks};

/// Time for the parts of a handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Longest wait for blocks that are still to come.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// Most readers at a time; more wait in the backlog of the port.
const READERS: usize = 4096;

/// What the engine tells those who ask.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Name of the engine, another one after each start.
    pub engine: String,
    /// Revision that pairs must share, if one is given.
    pub revision: Option<String>,
    /// Tokens per block.
    pub block_size: usize,
    /// Time for which blocks stay.
    pub lease: Duration,
}

/// A listening side channel.
pub struct SideChannel {
    listener: TcpListener,
    identity: Arc<Identity>,
}

impl SideChannel {
    /// Listens; port 0 takes a free one.
    pub async fn bind(host: &str, port: u16, identity: Identity) -> io::Result<Self> {
        let listener = TcpListener::bind((host.trim_matches(['[', ']']), port)).await?;
        Ok(Self {
            listener,
            identity: Arc::new(identity),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop`.
    pub async fn serve(self, engine: EngineHandle, stop: CancellationToken) {
        let readers = Arc::new(Semaphore::new(READERS));
        loop {
            let Ok(place) = readers.clone().acquire_owned().await else {
                return;
            };
            let stream = tokio::select! {
                () = stop.cancelled() => return,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "side channel: accept failed");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                },
            };
            let (engine, identity, stop) = (engine.clone(), self.identity.clone(), stop.clone());
            tokio::spawn(async move {
                let _place = place;
                tokio::select! {
                    () = stop.cancelled() => {}
                    ended = attend(stream, &engine, &identity) => if let Err(error) = ended {
                        tracing::debug!(%error, "side channel: a reader went away");
                    }
                }
            });
        }
    }
}

async fn attend(stream: TcpStream, engine: &EngineHandle, identity: &Identity) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    let ask = wire::read(&mut stream, HANDSHAKE).await?;
    if let Ask::Prefix { hashes } = ask {
        let blocks = engine.cached(hashes).await.unwrap_or_default();
        return wire::write(&mut stream, &Reply::Prefix { blocks }, HANDSHAKE).await;
    }
    match answer(ask, engine, identity).await? {
        Ok(held) => {
            let reply = Reply::Held {
                blocks: held.blocks,
                tokens: held.tokens,
                lease_ms: u64::try_from(identity.lease.as_millis()).unwrap_or(u64::MAX),
            };
            let ended = match wire::write(&mut stream, &reply, HANDSHAKE).await {
                Ok(()) => follow(&mut stream, engine, held.id, identity.lease).await,
                Err(error) => Err(error),
            };
            // Read, or the reader is gone: in both cases nobody needs them any more.
            engine.release(held.id).await;
            ended
        }
        Err(refusal) => wire::write(&mut stream, &refusal, HANDSHAKE).await,
    }
}

async fn answer(
    ask: Ask,
    engine: &EngineHandle,
    identity: &Identity,
) -> io::Result<Result<HeldBlocks, Reply>> {
    let Ask::Claim {
        engine: wanted,
        key,
        block_size,
        revision,
        wait_ms,
    } = ask
    else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    if wanted.is_some_and(|wanted| wanted != identity.engine) {
        return Ok(Err(Reply::OtherEngine {
            engine: identity.engine.clone(),
        }));
    }
    if let (Some(here), Some(_)) = (
        &identity.revision,
        revision.filter(|there| Some(there) != identity.revision.as_ref()),
    ) {
        return Ok(Err(Reply::Revision {
            revision: here.clone(),
        }));
    }
    if block_size != identity.block_size {
        return Ok(Err(Reply::BlockSize {
            block_size: identity.block_size,
        }));
    }
    let patience = (wait_ms > 0).then(|| Duration::from_millis(wait_ms).min(LONGEST_WAIT));
    let held = engine.claim(key.into(), identity.lease, patience).await;
    Ok(held.ok_or(Reply::Unknown))
}

/// Keeps the blocks while the reader gives signs of life.
async fn follow(
    stream: &mut BufReader<TcpStream>,
    engine: &EngineHandle,
    id: u64,
    lease: Duration,
) -> io::Result<()> {
    loop {
        match wire::read(stream, lease).await? {
            Ask::Done => return Ok(()),
            Ask::Beat => engine.extend(id, lease.mul_f64(2.0 / 3.0)).await,
            Ask::Claim { .. } | Ask::Prefix { .. } => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}
