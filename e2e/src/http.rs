//! A plain HTTP/1.1 client: whole requests in one call, or raw bytes in any pieces.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// No single exchange of a test takes longer.
pub const EXCHANGE: Duration = Duration::from_secs(60);

/// An answer read to its end.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status code.
    pub status: u16,
    /// Headers of the answer.
    pub headers: hyper::HeaderMap,
    /// Whole body.
    pub body: Bytes,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.text()))
    }

    /// A header as text, empty when absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }
}

/// One request on a connection of its own; the answer's body is still to be read.
///
/// # Errors
/// When the connection fails.
pub async fn open(address: SocketAddr, request: Request<Full<Bytes>>) -> anyhow::Result<Response<Incoming>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(tokio::time::timeout(EXCHANGE, sender.send_request(request)).await??)
}

/// One request, answered whole.
///
/// # Errors
/// When the connection fails or the answer breaks off.
pub async fn send(address: SocketAddr, request: Request<Full<Bytes>>) -> anyhow::Result<Answer> {
    read(open(address, request).await?).await
}

async fn read(response: Response<Incoming>) -> anyhow::Result<Answer> {
    let (head, body) = response.into_parts();
    let body = tokio::time::timeout(EXCHANGE, body.collect()).await??.to_bytes();
    Ok(Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        body,
    })
}

/// A connection that is kept between requests, as clients with a pool do.
#[derive(Debug)]
pub struct Kept(http1::SendRequest<Full<Bytes>>);

impl Kept {
    /// Connects.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    /// Whether the server keeps it open too.
    pub async fn is_open(&mut self) -> bool {
        self.0.ready().await.is_ok()
    }

    /// One request, answered whole.
    ///
    /// # Errors
    /// When the connection fails or the answer breaks off.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> anyhow::Result<Answer> {
        read(tokio::time::timeout(EXCHANGE, self.0.send_request(request)).await??).await
    }
}

/// GET.
///
/// # Errors
/// As [`send`].
pub async fn get(address: SocketAddr, path: &str) -> anyhow::Result<Answer> {
    get_with(address, path, &[]).await
}

/// GET with extra headers.
///
/// # Errors
/// As [`send`].
pub async fn get_with(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> anyhow::Result<Answer> {
    let mut request = Request::get(path).header("host", "llmd.test");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(address, request.body(Full::default())?).await
}

/// POST of a JSON body with extra headers.
///
/// # Errors
/// As [`send`].
pub async fn post(
    address: SocketAddr,
    path: &str,
    body: impl Into<Bytes>,
    headers: &[(&str, &str)],
) -> anyhow::Result<Answer> {
    send(address, json_request(path, body, headers)?).await
}

/// A POST of a JSON body with extra headers, to be sent.
///
/// # Errors
/// When a header is none.
pub fn json_request(
    path: &str,
    body: impl Into<Bytes>,
    headers: &[(&str, &str)],
) -> anyhow::Result<Request<Full<Bytes>>> {
    let mut request = Request::post(path)
        .header("host", "llmd.test")
        .header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Ok(request.body(Full::new(body.into()))?)
}

/// Sends a body with chunked framing in pieces of the given sizes, in turn, and an optional
/// trailer section; returns the raw answer until the server closes or the answer's end.
///
/// # Errors
/// When the connection fails.
pub async fn post_chunked(
    address: SocketAddr,
    path: &str,
    body: &[u8],
    sizes: &[usize],
    trailers: &str,
) -> anyhow::Result<String> {
    post_chunked_with(address, path, body, sizes, &[], trailers).await
}

/// [`post_chunked`] with extra headers.
///
/// # Errors
/// When the connection fails.
pub async fn post_chunked_with(
    address: SocketAddr,
    path: &str,
    body: &[u8],
    sizes: &[usize],
    headers: &[(&str, &str)],
    trailers: &str,
) -> anyhow::Result<String> {
    let mut extra = String::new();
    for (name, value) in headers {
        extra.extend([*name, ": ", *value, "\r\n"]);
    }
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut reader, mut writer) = stream.split();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: llmd.test\r\ncontent-type: application/json\r\nconnection: close\r\n\
         transfer-encoding: chunked\r\n{extra}\r\n"
    );
    let write = async {
        writer.write_all(head.as_bytes()).await?;
        let mut rest = body;
        for size in sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (chunk, tail) = rest.split_at((*size).min(rest.len()));
            writer
                .write_all(format!("{:x}\r\n", chunk.len()).as_bytes())
                .await?;
            writer.write_all(chunk).await?;
            writer.write_all(b"\r\n").await?;
            rest = tail;
        }
        writer.write_all(format!("0\r\n{trailers}\r\n").as_bytes()).await
    };
    let read = async {
        let mut answer = Vec::new();
        reader.read_to_end(&mut answer).await.map(|_| answer)
    };
    // An answer may come before the body is sent; a write error then is not the test's concern.
    let (_, answer) = tokio::time::timeout(EXCHANGE, async { tokio::join!(write, read) }).await?;
    Ok(String::from_utf8_lossy(&answer?).into_owned())
}
