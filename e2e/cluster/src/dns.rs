//! One DNS question over TCP (RFC 1035 §4), because the host's resolver does not know the cluster.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The IPv4 address of a fully qualified name.
pub(crate) async fn address(server: SocketAddr, name: &str) -> anyhow::Result<IpAddr> {
    let question = question(name)?;
    let mut stream = TcpStream::connect(server).await?;
    stream.write_u16(question.len() as u16).await?;
    stream.write_all(&question).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; length.into()];
    stream.read_exact(&mut answer).await?;
    read(&answer, question.len()).with_context(|| format!("{name} does not resolve"))
}

/// Recursion desired, one question: type A, class IN.
fn question(name: &str) -> anyhow::Result<Vec<u8>> {
    let mut message = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len())
            .ok()
            .filter(|length| (1..64).contains(length));
        message.push(length.with_context(|| format!("{name} is no DNS name"))?);
        message.extend_from_slice(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    Ok(message)
}

/// The first record of the answer, which begins after the repeated question.
fn read(answer: &[u8], start: usize) -> anyhow::Result<IpAddr> {
    let code = answer.get(3).context("an answer shorter than its header")? & 0x0f;
    if code != 0 || answer.get(6..8) == Some(&[0, 0]) {
        bail!("response code {code}, no record");
    }
    // The owner's name is a pointer or written in full; then type A, class IN, time to live, length.
    let records = answer.get(start..).context("no record")?;
    records
        .windows(14)
        .find_map(|window| match window {
            [0, 1, 0, 1, _, _, _, _, 0, 4, a, b, c, d] => Some(IpAddr::V4(Ipv4Addr::new(*a, *b, *c, *d))),
            _ => None,
        })
        .context("no address record")
}
