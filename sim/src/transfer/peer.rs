//! Blocks that another engine has in its cache: asked for by the hashes of a prompt, wherever it was computed.

use std::io;
use std::time::Duration;

use tokio::io::BufReader;
use tokio::net::TcpStream;

use super::params::RemotePrefiller;
use super::wire::{self, Ask, Reply};

/// Time to reach the other engine, and for its answer.
const WITHIN: Duration = Duration::from_secs(10);

/// Most blocks of a prompt that are asked for: so many hashes fit into a message.
const MOST: usize = 2048;

/// How many of the blocks `hashes`, from the first on, the engine that `source` names has. An engine of other blocks has
/// none of these.
///
/// # Errors
/// It cannot be asked.
pub async fn cached(source: &RemotePrefiller, hashes: &[u64]) -> io::Result<usize> {
    let host = source.remote_host.trim_matches(['[', ']']);
    let stream = tokio::time::timeout(WITHIN, TcpStream::connect((host, source.remote_port))).await??;
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    let asked = &hashes[..hashes.len().min(MOST)];
    let ask = Ask::Prefix {
        hashes: asked.to_vec(),
    };
    wire::write(&mut stream, &ask, WITHIN).await?;
    match wire::read(&mut stream, WITHIN).await? {
        Reply::Prefix { blocks } => Ok(blocks.min(asked.len())),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}
