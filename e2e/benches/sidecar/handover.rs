//! From the last byte of a prefill engine's answer to the first byte of the decode engine's request.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use llmd_e2e::bench::load;
use llmd_e2e::http;
use tokio::net::TcpListener;

use super::{KB, sidecar};

const REQUESTS: usize = 2_000;
/// Outside the figures.
const WARM: usize = 200;
const PREFILLED: &str = r#"{"id":"p","choices":[],"usage":{"prompt_tokens":9},"kv_transfer_params":{"do_remote_prefill":true,"do_remote_decode":false,"remote_block_ids":[[1,2,3,4,5,6,7,8]],"remote_engine_id":"e","remote_request_id":"r","remote_host":"10.0.0.1","remote_port":5600,"tp_size":1}}"#;
const DECODED: &str = r#"{"id":"d","choices":[],"usage":{"prompt_tokens":9}}"#;

/// When the prefill engine answered last, and the pauses since.
#[derive(Default)]
struct Clock {
    prefilled: Option<Instant>,
    pauses: Vec<Duration>,
}

type Shared = Arc<Mutex<Clock>>;

/// The pauses, sorted.
pub(crate) async fn measure() -> Vec<Duration> {
    let clock = Shared::default();
    let (prefill, decode) = (engine(&clock, true).await, engine(&clock, false).await);
    let (_sidecar, address) = sidecar(decode).await;
    let prefill = prefill.to_string();
    let headers = [("x-prefiller-host-port", prefill.as_str())];
    let bodies = load::prompts(64, 16 * KB);
    for body in bodies.iter().cycle().take(WARM + REQUESTS) {
        let answer = http::post(address, load::CHAT, body.clone(), &headers).await;
        assert_eq!(answer.expect("an answer").status, 200);
    }
    let mut pauses = clock.lock().expect("a clock").pauses.split_off(WARM);
    assert_eq!(pauses.len(), REQUESTS);
    pauses.sort_unstable();
    pauses
}

async fn engine(clock: &Shared, prefills: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
    let address = listener.local_addr().expect("its address");
    let clock = Arc::clone(clock);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let clock = Arc::clone(&clock);
            let service = service_fn(move |request| answer(request, Arc::clone(&clock), prefills));
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

async fn answer(
    request: Request<Incoming>,
    clock: Shared,
    prefills: bool,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if !prefills {
        let mut clock = clock.lock().expect("a clock");
        let began = clock.prefilled.take().expect("a prefill first");
        clock.pauses.push(began.elapsed());
    }
    let _ = request.into_body().collect().await;
    if prefills {
        clock.lock().expect("a clock").prefilled = Some(Instant::now());
    }
    let text = if prefills { PREFILLED } else { DECODED };
    Ok(Response::new(Full::from(text)))
}
