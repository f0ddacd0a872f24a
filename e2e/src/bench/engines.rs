//! Engines that cost nothing: they answer at once, or in paced chunks, and have a metrics page.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// First argument of the process that runs them; the second is how many.
pub const ROLE: &str = "engines";
/// Path that is answered with paced chunks; any other with one short document.
pub const STREAM: &str = "/v1/completions";
/// Path that tells how many metrics pages all of them gave so far.
pub const SCRAPES: &str = "/scrapes";
/// Chunks of a streamed answer.
pub const CHUNKS: usize = 100;

const PAUSE: Duration = Duration::from_millis(20);
const METRICS: &str = include_str!("../../../epp/core/testdata/vllm.prom");
const ANSWER: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"Hello."},"finish_reason":"stop"}],"usage":{"prompt_tokens":200,"completion_tokens":2,"total_tokens":202}}"#;
const CHUNK: &str = "data: {\"id\":\"cmpl-1\",\"object\":\"text_completion\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"text\":\" word\",\"logprobs\":null,\"finish_reason\":null}]}\n\n";

static PAGES: AtomicU64 = AtomicU64::new(0);

/// Listens on a port each, says which, and serves until it is killed.
///
/// # Panics
/// Without a number of engines as second argument.
#[allow(clippy::print_stdout, reason = "the addresses are what the caller reads")]
pub fn run() {
    let count = std::env::args().nth(2).and_then(|count| count.parse().ok());
    let count: usize = count.expect("a number of engines");
    super::runtime().block_on(async {
        let mut addresses = Vec::new();
        for _ in 0..count {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
            addresses.push(listener.local_addr().expect("its address").to_string());
            tokio::spawn(accept(listener));
        }
        println!("{}", addresses.join(" "));
        std::future::pending::<()>().await;
    });
}

async fn accept(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)));
    }
}

async fn answer(
    request: Request<Incoming>,
) -> Result<Response<UnsyncBoxBody<Bytes, Infallible>>, hyper::Error> {
    let path = request.uri().path().to_owned();
    let mut body = request.into_body();
    while let Some(frame) = body.frame().await {
        frame?;
    }
    let (kind, body) = match path.as_str() {
        "/metrics" => {
            PAGES.fetch_add(1, Ordering::Relaxed);
            ("text/plain", Full::from(METRICS).boxed_unsync())
        }
        SCRAPES => {
            let pages = PAGES.load(Ordering::Relaxed).to_string();
            ("text/plain", Full::from(pages).boxed_unsync())
        }
        STREAM => {
            let chunks = futures_util::stream::iter(0..CHUNKS).then(|_| async {
                tokio::time::sleep(PAUSE).await;
                Ok(Frame::data(Bytes::from_static(CHUNK.as_bytes())))
            });
            (
                "text/event-stream",
                BodyExt::boxed_unsync(StreamBody::new(chunks)),
            )
        }
        _ => ("application/json", Full::from(ANSWER).boxed_unsync()),
    };
    let mut response = Response::new(body);
    let kind = hyper::header::HeaderValue::from_static(kind);
    response.headers_mut().insert("content-type", kind);
    Ok(response)
}
