//! One client connection from its handshake to its end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::{TlsAcceptor, TlsStream};
use tokio_util::sync::CancellationToken;

use crate::activity::{Activity, Overdue, Watched};
use crate::exchange::{Shared, serve};
use crate::limits::Limits;
use crate::route::Route;
use crate::stall::StreamExecutor;
use crate::transport::Transport;

/// Streams that a client may have open on one HTTP/2 connection.
const STREAMS: u32 = 1024;
/// Most bytes that an HTTP/1.1 connection reads ahead, and keeps while it is idle; also the largest head.
pub(crate) const BUFFER_BYTES: usize = 64 * 1024;
/// Largest head of an HTTP/2 request, in bytes.
const HEAD_BYTES: u32 = 64 * 1024;
/// Pause between two pings of an HTTP/2 client while it has streams open, and the longest wait for its answer.
const PING: Duration = Duration::from_secs(30);

/// When connections end.
#[derive(Clone)]
pub(crate) struct Endings {
    /// Clients shall come back on another connection.
    pub(crate) closing: CancellationToken,
    /// No further request.
    pub(crate) shutdown: CancellationToken,
    /// At once.
    pub(crate) cut: CancellationToken,
}

/// Who sent a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client {
    pub(crate) peer: SocketAddr,
    /// Whether the request came over TLS.
    pub(crate) is_secure: bool,
}

/// Serves all requests of a connection.
pub(crate) async fn run<R: Route>(
    shared: Arc<Shared<R>>,
    stream: TcpStream,
    peer: SocketAddr,
    http: auto::Builder<StreamExecutor>,
    endings: Endings,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "cannot switch off Nagle's algorithm");
    }
    let limits = shared.limits.clone();
    let client = Client {
        peer,
        is_secure: shared.tls.is_some(),
    };
    let stream = match &shared.tls {
        None => Transport::Plain(stream),
        Some(tls) => {
            let handshake = TlsAcceptor::from(Arc::clone(tls)).accept(stream);
            let accepted = tokio::select! {
                () = endings.cut.cancelled() => return,
                accepted = timeout(limits.request_head, handshake) => accepted,
            };
            match accepted {
                Ok(Ok(stream)) => Transport::Tls(Box::new(TlsStream::Server(stream))),
                Ok(Err(error)) => return tracing::debug!(%peer, %error, "TLS handshake failed"),
                Err(_) => return tracing::debug!(%peer, "TLS handshake took too long"),
            }
        }
    };
    let activity = Activity::new(stream.has_agreed_on_http2());
    let watched = Watched::new(stream, Arc::clone(&activity), limits.client_stall);
    let requests = Arc::clone(&activity);
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        let open = requests.request();
        async move { Ok::<_, Infallible>(serve(shared, request, client, open).await) }
    });
    let mut connection = pin!(http.serve_connection_with_upgrades(TokioIo::new(watched), service));

    let look = (limits.request_head.min(limits.client_idle) / 2).max(Duration::from_millis(1));
    let mut signals = endings.signals();
    signals.push(Box::pin(looked(look)));
    let (mut is_closing, mut is_ending) = (false, false);
    loop {
        let signal = tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%peer, %error, "client connection ended");
                }
                return;
            }
            Some(signal) = signals.next() => signal,
        };
        let is_over = match signal {
            Signal::Cut => return,
            Signal::Shutdown => true,
            Signal::Closing => {
                is_closing = true;
                false
            }
            Signal::Look => {
                signals.push(Box::pin(looked(look)));
                match activity.overdue(&limits) {
                    Some(Overdue::Head) => return tracing::debug!(%peer, "no whole request head in time"),
                    Some(Overdue::Idle) => true,
                    None => false,
                }
            }
        };
        // HTTP/1 connections that close end with an answer that says so, HTTP/2 ones here.
        let is_over = is_over || (is_closing && activity.can_go_away());
        if is_over && !std::mem::replace(&mut is_ending, true) {
            connection.as_mut().graceful_shutdown();
        }
    }
}

/// What a connection is told besides its bytes.
enum Signal {
    Closing,
    Shutdown,
    Cut,
    /// It is time to look at the deadlines.
    Look,
}

/// Each is polled only when it has something to say: all connections share the tokens, and asking them with each
/// chunk of each answer would make their locks a bottleneck.
type Signals = FuturesUnordered<Pin<Box<dyn Future<Output = Signal> + Send>>>;

impl Endings {
    fn signals(&self) -> Signals {
        let Self {
            closing,
            shutdown,
            cut,
        } = self.clone();
        let signals = Signals::new();
        signals.push(Box::pin(async move {
            closing.cancelled().await;
            Signal::Closing
        }));
        signals.push(Box::pin(async move {
            shutdown.cancelled().await;
            Signal::Shutdown
        }));
        signals.push(Box::pin(async move {
            cut.cancelled().await;
            Signal::Cut
        }));
        signals
    }
}

async fn looked(after: Duration) -> Signal {
    sleep(after).await;
    Signal::Look
}

/// How clients are spoken with.
pub(crate) fn http(limits: &Limits) -> auto::Builder<StreamExecutor> {
    let mut http = auto::Builder::new(StreamExecutor {
        stall: limits.client_stall,
    });
    // `Activity` has the deadline for heads.
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(BUFFER_BYTES);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEAD_BYTES)
        // WebSockets (RFC 8441).
        .enable_connect_protocol()
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    http
}
