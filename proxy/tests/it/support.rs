//! A recording route, scripted targets and a raw client.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Response, request, response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use llmd_proxy::{BodyMode, Flight, Limits, LocalReply, Outcome, Plan, Resumption, Route, Server};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

pub const DEADLINE: Duration = Duration::from_secs(20);
/// Bytes that an HTTP/2 client here takes without being asked.
pub const WINDOW: u32 = 65_535;

/// Sends every request to the first target, then to the next ones.
#[derive(Clone)]
pub struct TestRoute {
    pub targets: Arc<Vec<SocketAddr>>,
    pub mode: BodyMode,
    /// Whether broken streams go on at the next target; after the last one with an end of its own.
    pub resumes: bool,
    pub outcomes: Arc<Mutex<Vec<Outcome>>>,
    /// Response bytes that the forwarder pulled from targets.
    pub pulled: Arc<AtomicUsize>,
}

impl TestRoute {
    pub fn to(targets: &[SocketAddr]) -> Self {
        Self {
            targets: Arc::new(targets.to_vec()),
            mode: BodyMode::Buffer,
            resumes: false,
            outcomes: Arc::default(),
            pulled: Arc::default(),
        }
    }

    pub fn resuming(mut self) -> Self {
        self.resumes = true;
        self
    }

    pub fn streaming(mut self) -> Self {
        self.mode = BodyMode::Stream;
        self
    }

    pub async fn outcome(&self) -> Outcome {
        poll_until(|| self.outcomes.lock().unwrap().first().copied()).await
    }
}

pub struct TestFlight {
    route: TestRoute,
    next: usize,
}

impl Route for TestRoute {
    type Flight = TestFlight;

    fn begin(&self, head: &request::Parts, _: SocketAddr) -> Result<TestFlight, LocalReply> {
        if head.uri.path() == "/refused" {
            return Err(LocalReply::error(http::StatusCode::NOT_FOUND, "no such path"));
        }
        Ok(TestFlight {
            route: self.clone(),
            next: 1,
        })
    }
}

impl Flight for TestFlight {
    fn body_mode(&self) -> BodyMode {
        self.route.mode
    }

    fn on_request_chunk(&mut self, chunk: &Bytes) -> Result<(), LocalReply> {
        if chunk.windows(6).any(|window| window == b"POISON") {
            return Err(LocalReply::error(http::StatusCode::BAD_REQUEST, "poisoned"));
        }
        Ok(())
    }

    async fn plan(&mut self, _: &mut request::Parts, body: Vec<Bytes>) -> Result<Plan, LocalReply> {
        Ok(Plan {
            target: self.route.targets[0],
            body,
        })
    }

    async fn replan(&mut self, _: SocketAddr, _: &mut request::Parts) -> Option<SocketAddr> {
        let next = self.route.targets.get(self.next).copied();
        self.next += 1;
        next
    }

    async fn resume(&mut self, failed: SocketAddr, head: &mut request::Parts) -> Option<Resumption> {
        if !self.route.resumes {
            return None;
        }
        head.headers
            .insert("x-after", failed.to_string().parse().unwrap());
        Some(match self.replan(failed, head).await {
            Some(target) => Resumption::Send(Plan {
                target,
                body: vec![Bytes::from_static(b"the rest")],
            }),
            None => Resumption::Complete(Bytes::from_static(b"data: end\n\n")),
        })
    }

    fn on_response_head(&mut self, head: &mut response::Parts) {
        head.headers
            .insert("x-seen", http::HeaderValue::from_static("yes"));
    }

    fn on_response_chunk(&mut self, chunk: Bytes, _: bool, out: &mut Vec<Bytes>) {
        self.route.pulled.fetch_add(chunk.len(), Ordering::Relaxed);
        out.push(chunk);
    }

    fn on_end(&mut self, outcome: Outcome) {
        self.route.outcomes.lock().unwrap().push(outcome);
    }
}

/// A forwarder that stops with its guard.
pub struct Proxy {
    pub address: SocketAddr,
    pub closing: CancellationToken,
    pub shutdown: CancellationToken,
    pub task: tokio::task::JoinHandle<Result<(), llmd_proxy::ServeError>>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub async fn proxy(route: &TestRoute, limits: Limits) -> Proxy {
    proxy_with(route, limits, |server| server).await
}

/// With more than bounds to set.
pub async fn proxy_with(
    route: &TestRoute,
    limits: Limits,
    set: impl FnOnce(Server<TestRoute>) -> Server<TestRoute>,
) -> Proxy {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (closing, shutdown) = (CancellationToken::new(), CancellationToken::new());
    let server = set(Server::new(route.clone(), limits).closing_connections_on(closing.clone()));
    let task = tokio::spawn(server.serve(listener, shutdown.clone()));
    Proxy {
        address,
        closing,
        shutdown,
        task,
    }
}

/// One accepted connection of a scripted target.
pub struct Accepted(pub TcpStream);

impl Accepted {
    /// Reads one request: its head as text and its body (`content-length` or chunked framing).
    pub async fn request(&mut self) -> Option<(String, Vec<u8>)> {
        let head = read_head(&mut self.0).await?;
        let body = read_body(&mut self.0, &head).await;
        Some((head, body))
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // The other side may be gone: that is what some tests are about.
        let _ = self.0.write_all(bytes.as_ref()).await;
    }

    /// Waits until the forwarder closes this connection.
    pub async fn closed(&mut self) {
        let mut rest = [0; 1024];
        tokio::time::timeout(DEADLINE, async {
            while !matches!(self.0.read(&mut rest).await, Ok(0) | Err(_)) {}
        })
        .await
        .expect("the connection to the target is closed");
    }
}

/// A target whose connections are handed to the test one by one.
pub struct Target {
    listener: TcpListener,
    pub address: SocketAddr,
}

impl Target {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { listener, address }
    }

    pub async fn accept(&self) -> Accepted {
        let accepted = tokio::time::timeout(DEADLINE, self.listener.accept())
            .await
            .expect("a connection");
        Accepted(accepted.unwrap().0)
    }

    /// Serves every request of every connection with `answer`, in the background.
    pub fn always(self, answer: &'static [u8]) -> SocketAddr {
        let address = self.address;
        tokio::spawn(async move {
            loop {
                let mut connection = self.accept().await;
                tokio::spawn(async move {
                    while connection.request().await.is_some() {
                        connection.send(answer).await;
                    }
                });
            }
        });
        address
    }
}

/// An address that refuses connections.
pub async fn refusing() -> SocketAddr {
    Target::start().await.address
}

pub async fn client(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

/// An HTTP/2 client on `stream`, which speaks it from its first byte.
pub async fn http2(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> http2::SendRequest<Full<Bytes>> {
    let handshake = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(WINDOW)
        .handshake(TokioIo::new(stream));
    let (sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    sender
}

/// A request with a body for `sender`, whose answer's head is here when it returns.
pub async fn send(sender: &http2::SendRequest<Full<Bytes>>, body: &'static str) -> Response<Incoming> {
    let request = http::Request::post("http://llm.example/x?y=1").body(Full::from(body));
    let answer = sender.clone().send_request(request.unwrap());
    tokio::time::timeout(DEADLINE, answer)
        .await
        .expect("an answer in time")
        .unwrap()
}

pub async fn text(answer: Response<Incoming>) -> String {
    let body = answer.into_body().collect().await.expect("a whole body");
    String::from_utf8(body.to_bytes().to_vec()).unwrap()
}

/// Sends raw bytes on a new connection and reads the answer until the server closes.
pub async fn raw(address: SocketAddr, request: impl AsRef<[u8]>) -> String {
    let mut stream = client(address).await;
    stream.write_all(request.as_ref()).await.unwrap();
    let mut answer = Vec::new();
    // A cut connection is an answer too.
    let _ = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer))
        .await
        .expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}

pub async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0; 1];
    while !head.ends_with(b"\r\n\r\n") {
        match tokio::time::timeout(DEADLINE, stream.read(&mut byte))
            .await
            .expect("a head in time")
        {
            Ok(1) => head.push(byte[0]),
            _ => return None,
        }
    }
    Some(String::from_utf8(head).unwrap().to_ascii_lowercase())
}

pub async fn read_body(stream: &mut TcpStream, head: &str) -> Vec<u8> {
    if let Some((_, rest)) = head.split_once("content-length: ") {
        let length = rest.lines().next().unwrap().trim().parse().unwrap();
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        return body;
    }
    let mut body = Vec::new();
    if head.contains("transfer-encoding: chunked") {
        loop {
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") {
                line.push(stream.read_u8().await.unwrap());
            }
            let size = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim(), 16).unwrap();
            let mut chunk = vec![0; size + 2];
            stream.read_exact(&mut chunk).await.unwrap();
            if size == 0 {
                break;
            }
            body.extend_from_slice(&chunk[..size]);
        }
    }
    body
}

pub async fn poll_until<T>(mut probe: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(Instant::now() < end, "the condition did not come true in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until the forwarder closes a client's connection.
pub async fn closed(stream: &mut TcpStream) {
    let mut rest = [0; 1024];
    tokio::time::timeout(DEADLINE, async {
        while !matches!(stream.read(&mut rest).await, Ok(0) | Err(_)) {}
    })
    .await
    .expect("the connection to the client is closed");
}
