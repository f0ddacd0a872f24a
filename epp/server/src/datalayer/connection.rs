//! One kept-alive HTTP/1.1 connection that fetches one page again and again.
//!
//! A small reader of its own instead of hyper: the request is a constant, the head is not needed
//! beyond its framing, and the body lands in a buffer that is used again, so a poll allocates nothing.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use memchr::memmem;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Largest response that is read, head included, in bytes.
pub(super) const MAX_RESPONSE: usize = 8 << 20;
const MAX_HEAD: usize = 64 << 10;
/// Room offered to each read, so that a usual page arrives in few calls.
const READ_STEP: usize = 32 << 10;

/// Why a page could not be fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum PollError {
    /// Nobody answers the port.
    #[error("connecting failed: {0}")]
    Connect(io::Error),
    /// The connection broke before the page was complete.
    #[error("the connection broke: {0}")]
    Broken(io::Error),
    /// No complete page within the budget.
    #[error("no complete page within {}s", super::SCRAPE_BUDGET.as_secs())]
    TimedOut,
    /// Not 200.
    #[error("the engine answered with status {0}")]
    Status(u16),
    /// Not HTTP/1.x.
    #[error("the answer is not valid HTTP/1.1: {0}")]
    Protocol(&'static str),
    /// Over [`MAX_RESPONSE`].
    #[error("the page is larger than {MAX_RESPONSE} bytes")]
    TooLarge,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// The connection, opened on first use and again after it was closed.
pub(super) struct Connection {
    address: SocketAddr,
    /// What its certificate must be for.
    name: ServerName<'static>,
    tls: Option<Arc<ClientConfig>>,
    request: Box<[u8]>,
    stream: Option<Stream>,
}

impl Connection {
    /// `host` is the name that the other side has, where it is known by one.
    pub(super) fn new(
        address: SocketAddr,
        host: Option<&str>,
        path: &str,
        tls: Option<Arc<ClientConfig>>,
    ) -> Self {
        let authority = host.map_or_else(
            || address.to_string(),
            |host| format!("{host}:{}", address.port()),
        );
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: {authority}\r\naccept: text/plain;version=0.0.4\r\nuser-agent: llmd-epp\r\n\r\n"
        );
        Self {
            address,
            name: host
                .and_then(|host| ServerName::try_from(host.to_owned()).ok())
                .unwrap_or_else(|| ServerName::IpAddress(address.ip().into())),
            tls,
            request: request.into_bytes().into(),
            stream: None,
        }
    }

    /// Forgets the connection: its state is not known any more.
    pub(super) fn close(&mut self) {
        self.stream = None;
    }

    /// Fetches the page into `buffer` and returns where in it the body lies.
    ///
    /// The stream is owned by the call and put back only after a complete exchange, so that a
    /// cancelled fetch never leaves half a response for the next one.
    pub(super) async fn fetch(&mut self, buffer: &mut Vec<u8>) -> Result<Range<usize>, PollError> {
        if let Some(stream) = self.stream.take() {
            match self.exchange(stream, buffer).await {
                // The engine closed an idle connection; that says nothing about a new one.
                Err(PollError::Broken(_)) if buffer.is_empty() => {}
                result => return result,
            }
        }
        let stream = self.connect().await?;
        self.exchange(stream, buffer).await
    }

    async fn connect(&self) -> Result<Stream, PollError> {
        let tcp = TcpStream::connect(self.address)
            .await
            .map_err(PollError::Connect)?;
        tcp.set_nodelay(true).map_err(PollError::Connect)?;
        let Some(config) = &self.tls else {
            return Ok(Stream::Plain(tcp));
        };
        let connector = TlsConnector::from(Arc::clone(config));
        let connected = connector.connect(self.name.clone(), tcp).await;
        Ok(Stream::Tls(Box::new(connected.map_err(PollError::Broken)?)))
    }

    async fn exchange(
        &mut self,
        mut stream: Stream,
        buffer: &mut Vec<u8>,
    ) -> Result<Range<usize>, PollError> {
        buffer.clear();
        let answer = match &mut stream {
            Stream::Plain(tcp) => ask(tcp, &self.request, buffer).await?,
            Stream::Tls(tls) => ask(&mut **tls, &self.request, buffer).await?,
        };
        if answer.reusable {
            self.stream = Some(stream);
        }
        if answer.status != 200 {
            return Err(PollError::Status(answer.status));
        }
        Ok(answer.body)
    }
}

struct Answer {
    status: u16,
    body: Range<usize>,
    reusable: bool,
}

async fn ask<S>(stream: &mut S, request: &[u8], buffer: &mut Vec<u8>) -> Result<Answer, PollError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(request).await.map_err(PollError::Broken)?;
    stream.flush().await.map_err(PollError::Broken)?;
    let mut reader = Reader { stream, buffer };
    let (head, start) = reader.head().await?;
    let (body, whole) = match head.framing {
        Framing::Length(length) => (reader.length(start, length).await?, true),
        Framing::Chunked => (reader.chunked(start).await?, true),
        Framing::UntilClose => (reader.until_close(start).await?, false),
    };
    Ok(Answer {
        status: head.status,
        body,
        reusable: whole && head.keep_alive,
    })
}

struct Reader<'a, S> {
    stream: &'a mut S,
    buffer: &'a mut Vec<u8>,
}

impl<S: AsyncRead + Unpin> Reader<'_, S> {
    /// Reads more; false at the end of the stream.
    async fn more(&mut self) -> Result<bool, PollError> {
        if self.buffer.len() >= MAX_RESPONSE {
            return Err(PollError::TooLarge);
        }
        self.buffer.reserve(READ_STEP);
        let read = self
            .stream
            .read_buf(self.buffer)
            .await
            .map_err(PollError::Broken)?;
        Ok(read > 0)
    }

    async fn need_more(&mut self) -> Result<(), PollError> {
        if self.more().await? {
            return Ok(());
        }
        Err(PollError::Broken(io::ErrorKind::UnexpectedEof.into()))
    }

    /// The final response head and where the body begins; interim (1xx) heads are passed over.
    async fn head(&mut self) -> Result<(Head, usize), PollError> {
        let mut start = 0;
        loop {
            let end = loop {
                if let Some(at) = memmem::find(&self.buffer[start..], b"\r\n\r\n") {
                    break start + at;
                }
                if self.buffer.len() - start > MAX_HEAD {
                    return Err(PollError::Protocol("the head is too long"));
                }
                self.need_more().await?;
            };
            let head = Head::parse(&self.buffer[start..end])?;
            start = end + 4;
            if head.status >= 200 {
                return Ok((head, start));
            }
        }
    }

    async fn length(&mut self, start: usize, length: usize) -> Result<Range<usize>, PollError> {
        let end = start
            .checked_add(length)
            .filter(|end| *end <= MAX_RESPONSE)
            .ok_or(PollError::TooLarge)?;
        self.buffer.reserve(end.saturating_sub(self.buffer.len()));
        while self.buffer.len() < end {
            self.need_more().await?;
        }
        if self.buffer.len() > end {
            return Err(PollError::Protocol("bytes follow the body"));
        }
        Ok(start..end)
    }

    /// Joins the chunks in place.
    async fn chunked(&mut self, start: usize) -> Result<Range<usize>, PollError> {
        let mut end = start;
        let mut at = start;
        loop {
            let line = self.line(at).await?;
            let size = chunk_size(&self.buffer[at..line])?;
            at = line + 2;
            if size == 0 {
                break;
            }
            let data_end = at
                .checked_add(size)
                .filter(|end| *end < MAX_RESPONSE)
                .ok_or(PollError::TooLarge)?;
            while self.buffer.len() < data_end + 2 {
                self.need_more().await?;
            }
            if &self.buffer[data_end..data_end + 2] != b"\r\n" {
                return Err(PollError::Protocol("a chunk does not end where its size says"));
            }
            self.buffer.copy_within(at..data_end, end);
            end += size;
            at = data_end + 2;
        }
        // Trailers, up to the empty line.
        loop {
            let line = self.line(at).await?;
            let empty = line == at;
            at = line + 2;
            if empty {
                return Ok(start..end);
            }
        }
    }

    /// Position of the line break after `from`.
    async fn line(&mut self, from: usize) -> Result<usize, PollError> {
        loop {
            if let Some(at) = memmem::find(&self.buffer[from..], b"\r\n") {
                return Ok(from + at);
            }
            if self.buffer.len() - from > MAX_HEAD {
                return Err(PollError::Protocol("a chunk line is too long"));
            }
            self.need_more().await?;
        }
    }

    async fn until_close(&mut self, start: usize) -> Result<Range<usize>, PollError> {
        while self.more().await? {}
        // Only the last line break tells a complete page from a cut one.
        if self.buffer.len() > start && self.buffer.last() != Some(&b'\n') {
            return Err(PollError::Broken(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(start..self.buffer.len())
    }
}

fn chunk_size(line: &[u8]) -> Result<usize, PollError> {
    let digits = line
        .split(|byte| *byte == b';')
        .next()
        .unwrap_or_default()
        .trim_ascii();
    std::str::from_utf8(digits)
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .and_then(|text| usize::from_str_radix(text, 16).ok())
        .ok_or(PollError::Protocol("a chunk size is not a number"))
}

#[derive(Debug, PartialEq, Eq)]
enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    framing: Framing,
    keep_alive: bool,
}

impl Head {
    fn parse(head: &[u8]) -> Result<Self, PollError> {
        let mut lines = head
            .split(|byte| *byte == b'\n')
            .map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let first = lines.next().unwrap_or_default();
        let (version, rest) = first
            .split_at_checked(9)
            .ok_or(PollError::Protocol("the status line is too short"))?;
        let mut keep_alive = match version {
            b"HTTP/1.1 " => true,
            b"HTTP/1.0 " => false,
            _ => return Err(PollError::Protocol("the answer does not begin with HTTP/1")),
        };
        let status = rest
            .get(..3)
            .and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
        let status: u16 = status.ok_or(PollError::Protocol("the status is not a number"))?;
        let mut framing = Framing::UntilClose;
        for line in lines {
            let Some(colon) = memchr::memchr(b':', line) else {
                return Err(PollError::Protocol("a header has no colon"));
            };
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            if name.eq_ignore_ascii_case(b"content-length") {
                let length = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                let length = length.ok_or(PollError::Protocol("content-length is not a number"))?;
                if framing != Framing::Chunked {
                    framing = Framing::Length(length);
                }
            } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
                if !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(PollError::Protocol("the transfer-encoding is not known"));
                }
                framing = Framing::Chunked;
            } else if name.eq_ignore_ascii_case(b"content-encoding") {
                if !value.eq_ignore_ascii_case(b"identity") {
                    return Err(PollError::Protocol(
                        "the page is compressed although nobody asked for it",
                    ));
                }
            } else if name.eq_ignore_ascii_case(b"connection") {
                let says = |word: &[u8]| {
                    value
                        .split(|byte| *byte == b',')
                        .any(|token| token.trim_ascii().eq_ignore_ascii_case(word))
                };
                keep_alive = !says(b"close") && (keep_alive || says(b"keep-alive"));
            }
        }
        if matches!(status, 204 | 304) {
            framing = Framing::Length(0);
        }
        Ok(Self {
            status,
            framing,
            keep_alive,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Response, then status, body and whether the connection can be used again.
    type Case = (&'static [u8], (u16, &'static [u8], bool));

    async fn answered(response: &[u8]) -> Result<(u16, Vec<u8>, bool), PollError> {
        // A duplex of three bytes cuts the response anywhere.
        let (mut ours, mut theirs) = tokio::io::duplex(3);
        let response = response.to_vec();
        let server = tokio::spawn(async move {
            let mut request = [0; 16];
            theirs.read_exact(&mut request).await.expect("request");
            theirs.write_all(&response).await.expect("write");
        });
        let mut buffer = Vec::new();
        let answer = ask(&mut ours, b"GET / HTTP/1.1\r\n", &mut buffer).await?;
        server.await.expect("server");
        Ok((answer.status, buffer[answer.body].to_vec(), answer.reusable))
    }

    #[tokio::test]
    async fn the_three_framings_are_read() {
        let cases: [Case; 6] = [
            (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab\n", (200, b"ab\n", true)),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nab\r\nB\r\n0123456789\n\r\n0\r\nt: 1\r\n\r\n",
                (200, b"ab0123456789\n", true)),
            (b"HTTP/1.0 200 OK\r\n\r\nab\n", (200, b"ab\n", false)),
            (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 No\r\ncontent-length: 0\r\nconnection: x, Close\r\n\r\n",
                (404, b"", false)),
            (b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 1\r\n\r\n\n", (200, b"\n", true)),
            (b"HTTP/1.1 204 None\r\n\r\n", (204, b"", true)),
        ];
        for (response, (status, body, reusable)) in cases {
            let got = answered(response).await.expect("valid");
            assert_eq!(
                got,
                (status, body.to_vec(), reusable),
                "{}",
                String::from_utf8_lossy(response)
            );
        }
    }

    #[tokio::test]
    async fn cut_and_broken_answers_are_errors() {
        let cases: [&[u8]; 10] = [
            b"",
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\nhalf a li",
            b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n",
        ];
        for response in cases {
            let got = answered(response).await;
            assert!(got.is_err(), "{}", String::from_utf8_lossy(response));
        }
    }

    /// An engine is not trusted with our life: whatever it sends is an answer or an error.
    #[tokio::test]
    async fn any_bytes_are_survived() {
        const PIECES: [&[u8]; 14] = [
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.1 100 C\r\n",
            b"transfer-encoding: chunked\r\n",
            b"content-length: 7\r\n",
            b"content-length: 18446744073709551615\r\n",
            b"connection: close\r\n",
            b"\r\n",
            b"\n",
            b"0\r\n",
            b"5\r\nab",
            b"fffffffffffffff\r\n",
            b"ffffffffffffffffff\r\n",
            b"abcdefg",
            b"\0\xff:",
        ];
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..3000 {
            let pieces = (0..random.usize(..9)).map(|_| PIECES[random.usize(..PIECES.len())]);
            let mut response = pieces.collect::<Vec<_>>().concat();
            if random.bool() {
                response.splice(..0, PIECES[0].iter().copied());
            }
            let mut stream = one_sided(response);
            let mut buffer = Vec::new();
            if let Ok(answer) = ask(&mut stream, b"", &mut buffer).await {
                assert!(answer.body.end <= buffer.len());
            }
        }
    }

    /// A stream that swallows what is written and reads `response`, then ends.
    fn one_sided(response: Vec<u8>) -> impl AsyncRead + AsyncWrite + Unpin {
        tokio::io::join(std::io::Cursor::new(response), tokio::io::sink())
    }
}
