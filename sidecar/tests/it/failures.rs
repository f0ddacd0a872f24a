//! Prefill engines that fail, and clients that leave.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use http::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::engine::{Engine, json, nobody, request, send};
use crate::{PATIENCE, Sidecar, until};

const PREFILLED: &str = r#"{"kv_transfer_params":{"remote_engine_id":"e"}}"#;
const BODY: &str = r#"{"messages":[{"role":"user","content":"x"}]}"#;

async fn ask(sidecar: &Sidecar, hosts: &[String]) -> (u16, String) {
    let headers = [("x-prefiller-host-port", hosts.join(","))];
    let asked = request("/v1/chat/completions", &headers, BODY);
    let (status, _, body) = send(sidecar.addresses[0], asked).await;
    (status.as_u16(), body)
}

#[tokio::test]
async fn a_failed_prefill_moves_to_the_next_engine_and_then_to_the_decode_engine() {
    let (broken, well) = (
        Engine::saying(503, "{}").await,
        Engine::saying(200, PREFILLED).await,
    );
    let decode = Engine::saying(200, "{}").await;
    let sidecar = Sidecar::start("", &[decode.address]).await;
    let dead = nobody().await.to_string();
    let hosts = [dead.clone(), broken.address.to_string(), well.address.to_string()];
    assert_eq!(ask(&sidecar, &hosts).await.0, 200);
    assert_eq!((broken.got().len(), well.got().len()), (1, 1));
    assert!(decode.got()[0].body.contains("remote_engine_id"));

    assert_eq!(
        ask(
            &sidecar,
            &[dead, broken.address.to_string(), "nonsense".to_owned()]
        )
        .await
        .0,
        200
    );
    assert_eq!(
        decode.got()[1].body,
        BODY,
        "computed here, from the prompt as it came"
    );
    assert!(sidecar.counts("llm_d_disagg_sidecar_prefills_total{where=\"local\"} 1"));
    assert!(sidecar.counts("llm_d_disagg_sidecar_prefill_failures_total{code=\"503\"} 2"));
}

#[tokio::test]
async fn upstreams_way_tells_the_client() {
    let broken = Engine::saying(503, "{\"why\":\"full\"}").await;
    let decode = Engine::saying(200, "{}").await;
    let sidecar = Sidecar::start("--prefill-failure=error", &[decode.address]).await;
    assert_eq!(
        ask(&sidecar, &[broken.address.to_string()]).await,
        (503, "{\"why\":\"full\"}".to_owned())
    );
    let (status, body) = ask(&sidecar, &[nobody().await.to_string()]).await;
    assert_eq!(status, 502);
    assert!(body.contains("BadGateway"), "{body}");
    assert!(decode.got().is_empty());
}

#[tokio::test]
async fn a_request_that_a_prefill_engine_refuses_is_refused() {
    let strict = Engine::saying(400, "{\"message\":\"too long\"}").await;
    let decode = Engine::saying(200, "{}").await;
    let sidecar = Sidecar::start("", &[decode.address]).await;
    let hosts = [strict.address.to_string(), strict.address.to_string()];
    assert_eq!(
        ask(&sidecar, &hosts).await,
        (400, "{\"message\":\"too long\"}".to_owned())
    );
    assert_eq!((strict.got().len(), decode.got().len()), (1, 0));
    let (status, _, body) = {
        let headers = [("x-prefiller-host-port", strict.address.to_string())];
        send(
            sidecar.addresses[0],
            request("/v1/chat/completions", &headers, "no JSON"),
        )
        .await
    };
    assert_eq!(status, 400);
    assert!(
        body.contains("BadRequestError") && body.contains("at byte 1"),
        "{body}"
    );
}

#[tokio::test]
async fn a_busy_prefill_engine_is_asked_again_where_flags_say_so() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let busy = Engine::start(move |_| match counted.fetch_add(1, Ordering::AcqRel) {
        0 | 1 => json(502, "{}"),
        _ => json(200, PREFILLED),
    })
    .await;
    let decode = Engine::saying(200, "{}").await;
    let sidecar = Sidecar::start(
        "--prefill-max-retries=2 --prefill-retry-backoff=1ms",
        &[decode.address],
    )
    .await;
    assert_eq!(ask(&sidecar, &[busy.address.to_string()]).await.0, 200);
    assert_eq!(asked.load(Ordering::Acquire), 3);
    assert!(decode.got()[0].body.contains("remote_engine_id"));
}

/// A prefill engine that takes a request and says nothing until it is left alone.
async fn silent() -> (std::net::SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("binds");
    let address = listener.local_addr().expect("bound");
    let left = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("asked");
        let mut got = Vec::new();
        stream.read_to_end(&mut got).await.expect("closed in order");
    });
    (address, left)
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_prefill_leg() {
    let (prefill, left) = silent().await;
    let decode = Engine::saying(200, "{}").await;
    let sidecar = Sidecar::start("", &[decode.address]).await;
    let mut client = TcpStream::connect(sidecar.addresses[0]).await.expect("connects");
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-prefiller-host-port: {prefill}\r\ncontent-length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    client.write_all(head.as_bytes()).await.expect("sent");
    until("the leg runs", || {
        sidecar.counts("llm_d_disagg_sidecar_prefills_running 1")
    })
    .await;
    drop(client);
    tokio::time::timeout(PATIENCE, left)
        .await
        .expect("in time")
        .expect("left alone");
    until("the leg is over", || {
        sidecar.counts("llm_d_disagg_sidecar_prefills_running 0")
    })
    .await;
    assert!(decode.got().is_empty());
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_decode() {
    let prefill = Engine::saying(200, PREFILLED).await;
    let (gone, is_gone) = tokio::sync::oneshot::channel::<()>();
    let gone = std::sync::Mutex::new(Some(gone));
    let decode = Engine::start(move |_| {
        let guard = gone.lock().expect("held").take();
        // Ends when the answer is dropped; never says anything more.
        let events = futures_util::stream::poll_fn(move |_| {
            let _held = &guard;
            std::task::Poll::<Option<Result<bytes::Bytes, std::io::Error>>>::Pending
        });
        let first = futures_util::stream::iter([Ok(bytes::Bytes::from_static(b"data: {}\n\n"))]);
        let body = Body::from_stream(futures_util::StreamExt::chain(first, events));
        Response::builder()
            .header("content-type", "text/event-stream")
            .body(body)
            .expect("valid")
    })
    .await;
    let sidecar = Sidecar::start("", &[decode.address]).await;
    let mut client = TcpStream::connect(sidecar.addresses[0]).await.expect("connects");
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-prefiller-host-port: {}\r\ncontent-length: {}\r\n\r\n{BODY}",
        prefill.address,
        BODY.len()
    );
    client.write_all(head.as_bytes()).await.expect("sent");
    let mut first = [0; 15];
    client.read_exact(&mut first).await.expect("an answer");
    assert!(first.starts_with(b"HTTP/1.1 200"));
    drop(client);
    let ended = tokio::time::timeout(PATIENCE, is_gone).await.expect("in time");
    assert!(ended.is_err(), "the decode engine's stream was dropped");
}
