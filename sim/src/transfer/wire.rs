//! Messages of the side channel: one JSON object per line, at most [`LONGEST`] bytes.

use std::io;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Most bytes of a message.
pub const LONGEST: u64 = 64 << 10;

/// What the reading engine says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// The first message: asks for blocks.
    Claim {
        /// Engine that holds them; `None` leaves that to the key.
        engine: Option<String>,
        /// Name of the transfer.
        key: String,
        /// Tokens per block of the reader: layouts must be equal.
        block_size: usize,
        /// Revision of the reader, if it has one.
        revision: Option<String>,
        /// Milliseconds that the reader waits for blocks still to come; 0 for none.
        wait_ms: u64,
    },
    /// The only message: how many of these blocks of a prompt, from the first on, are in the cache?
    Prefix {
        /// Their hashes.
        hashes: Vec<u64>,
    },
    /// The reader is still there.
    Beat,
    /// The blocks have been read.
    Done,
}

/// What the holding engine says to a claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The blocks are there, and stay while the reader gives signs of life.
    Held {
        /// Blocks, in order of the prompt.
        blocks: Vec<u32>,
        /// Tokens in them.
        tokens: usize,
        /// The lease in milliseconds.
        lease_ms: u64,
    },
    /// So many are in the cache.
    Prefix {
        /// Blocks.
        blocks: usize,
    },
    /// There is nothing under that name: never was, was read already, or the lease is over.
    Unknown,
    /// Another engine listens here now.
    OtherEngine {
        /// Its name.
        engine: String,
    },
    /// The layouts differ.
    BlockSize {
        /// Tokens per block here.
        block_size: usize,
    },
    /// The revisions differ.
    Revision {
        /// Revision here.
        revision: String,
    },
}

/// Writes one message.
pub async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &impl Serialize,
    within: Duration,
) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    tokio::time::timeout(within, stream.write_all(&line)).await?
}

/// Reads one message; the end of the connection is an error.
pub async fn read<M: DeserializeOwned>(
    stream: &mut (impl AsyncBufRead + Unpin),
    within: Duration,
) -> io::Result<M> {
    let mut line = Vec::new();
    tokio::time::timeout(within, stream.take(LONGEST).read_until(b'\n', &mut line)).await??;
    if line.last() != Some(&b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&line)?)
}
