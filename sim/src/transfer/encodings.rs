//! Encodings of images, videos and audio: one engine makes them, another asks for them by the hash of the medium.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::BufReader;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::wire;

/// Most encodings kept; the oldest go first.
const KEPT: usize = 100_000;

/// Bytes of an encoding: 576 tokens of 4,096 numbers of two bytes.
const SIZE: usize = 576 * 4096 * 2;

/// Time for the parts of an exchange.
const WITHIN: Duration = Duration::from_secs(10);

/// Where an encoding is to be read (`ec_transfer_params`, by hash of the medium).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encoding {
    /// Host of the side channel.
    pub peer_host: String,
    /// Its port.
    pub peer_port: u16,
    /// Bytes to read.
    pub size_bytes: usize,
    /// What an agent of NIXL would need: nothing here.
    #[serde(default)]
    pub nixl_agent_metadata_b64: String,
}

/// Encodings by hash of the medium, in an order that does not change.
pub type Encodings = BTreeMap<String, Encoding>;

#[derive(Debug, Default)]
struct Made {
    known: HashSet<String>,
    order: VecDeque<String>,
}

/// What an engine has encoded.
#[derive(Debug, Default)]
pub struct EncoderCache(Mutex<Made>);

impl EncoderCache {
    /// Adds what a request brought.
    pub fn insert(&self, hash: &str) {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if made.known.insert(hash.to_owned()) {
            made.order.push_back(hash.to_owned());
            if made.order.len() > KEPT
                && let Some(oldest) = made.order.pop_front()
            {
                made.known.remove(&oldest);
            }
        }
    }

    fn contains(&self, hash: &str) -> bool {
        let made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        made.known.contains(hash)
    }
}

#[derive(Serialize, Deserialize)]
struct Ask {
    encoding: String,
}

#[derive(Serialize, Deserialize)]
struct Reply {
    size_bytes: Option<usize>,
}

/// A listening side channel of encodings.
pub struct EncodingChannel(TcpListener);

impl EncodingChannel {
    /// Listens; port 0 takes a free one.
    pub async fn bind(host: &str, port: u16) -> io::Result<Self> {
        Ok(Self(
            TcpListener::bind((host.trim_matches(['[', ']']), port)).await?,
        ))
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Serves until `stop`.
    pub async fn serve(self, cache: Arc<EncoderCache>, stop: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = self.0.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "side channel of encodings: accept failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let cache = cache.clone();
            // It ends within its two deadlines.
            tokio::spawn(async move {
                if let Err(error) = attend(stream, &cache).await {
                    tracing::debug!(%error, "side channel of encodings: a reader went away");
                }
            });
        }
    }
}

async fn attend(stream: TcpStream, cache: &EncoderCache) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let Ask { encoding } = wire::read(&mut stream, WITHIN).await?;
    let size_bytes = cache.contains(&encoding).then_some(SIZE);
    wire::write(&mut stream, &Reply { size_bytes }, WITHIN).await
}

/// What the answer of an encoding engine says about its media.
pub fn answered(media: &[String], host: &str, port: u16) -> Encodings {
    let encoding = Encoding {
        peer_host: host.to_owned(),
        peer_port: port,
        size_bytes: SIZE,
        nixl_agent_metadata_b64: String::new(),
    };
    media
        .iter()
        .map(|hash| (hash.clone(), encoding.clone()))
        .collect()
}

/// Reads one encoding; the error says why there is none.
pub async fn fetch(hash: &str, from: &Encoding) -> Result<(), String> {
    let Encoding {
        peer_host, peer_port, ..
    } = from;
    let exchange = async {
        let host = peer_host.trim_matches(['[', ']']);
        let stream = tokio::time::timeout(WITHIN, TcpStream::connect((host, *peer_port))).await??;
        let mut stream = BufReader::new(stream);
        let encoding = hash.to_owned();
        wire::write(&mut stream, &Ask { encoding }, WITHIN).await?;
        wire::read::<Reply>(&mut stream, WITHIN).await
    };
    match exchange.await {
        Ok(Reply {
            size_bytes: Some(size),
        }) if size == from.size_bytes => Ok(()),
        Ok(_) => Err(format!(
            "the encoder {peer_host}:{peer_port} has no encoding {hash} of that size"
        )),
        Err(error) => Err(format!(
            "the encoder {peer_host}:{peer_port} cannot be asked: {error}"
        )),
    }
}
