//! Targets that speak HTTP/2, with and without TLS.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use llmd_proxy::{Limits, Outcome, TargetProtocol, TargetTls};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::support::{Proxy, Target, TestRoute, client, http2, proxy_with, raw, refusing, text};
use crate::tls::pair;

const REQUEST: &str = "POST /x?y=1 HTTP/1.1\r\nhost: llm.example\r\nconnection: close\r\nkeep-alive: 5\r\ncontent-length: 5\r\n\r\nhello";

/// Two frames: what the target got, and trailers.
struct Told(std::array::IntoIter<Frame<Bytes>, 2>);

impl Body for Told {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.next().map(Ok))
    }
}

async fn tell(request: Request<Incoming>) -> Result<Response<Told>, Infallible> {
    let (head, body) = request.into_parts();
    let (trailers, body) = match body.collect().await {
        Ok(all) => (all.trailers().cloned(), all.to_bytes()),
        Err(_) => (None, Bytes::new()),
    };
    let told = format!(
        "{:?} {} te={:?} hop={} {} {:?}",
        head.version,
        head.uri,
        head.headers.get("te"),
        head.headers.contains_key("connection") || head.headers.contains_key("keep-alive"),
        String::from_utf8_lossy(&body),
        trailers.unwrap_or_default(),
    );
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    let frames = [Frame::data(Bytes::from(told)), Frame::trailers(trailers)];
    Ok(Response::new(Told(frames.into_iter())))
}

fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    tokio::spawn(async move {
        auto::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service_fn(tell))
            .await
            .map_err(drop)
    });
}

/// A target that counts its connections.
async fn telling(tls: Option<TlsAcceptor>) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            match &tls {
                None => serve(stream),
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        serve(stream);
                    }
                }
            }
        }
    });
    (address, connections)
}

async fn reaching(route: &TestRoute, protocol: TargetProtocol) -> Proxy {
    proxy_with(route, Limits::default(), |server| {
        server.reaching_targets_by(protocol)
    })
    .await
}

fn prior_knowledge() -> TargetProtocol {
    TargetProtocol {
        speaks_http2: Arc::new(|| true),
        tls: None,
    }
}

#[tokio::test]
async fn requests_share_a_connection_and_leave_nothing_of_http1_in_it() {
    let (target, connections) = telling(None).await;
    let route = TestRoute::to(&[refusing().await, target]);
    let proxy = reaching(&route, prior_knowledge()).await;
    for _ in 0..3 {
        let answer = raw(proxy.address, REQUEST).await;
        assert!(
            answer.contains("HTTP/2.0 http://llm.example/x?y=1 te=None hop=false hello"),
            "{answer}"
        );
    }
    assert_eq!(connections.load(Ordering::Relaxed), 1);
    assert_eq!(route.outcome().await, Outcome::Complete);
}

#[tokio::test]
async fn trailers_reach_a_client_that_takes_them() {
    let (target, _) = telling(None).await;
    let proxy = reaching(&TestRoute::to(&[target]), prior_knowledge()).await;
    let mut sender = http2(client(proxy.address).await).await;
    let request = Request::post("http://llm.example/x")
        .header("te", "trailers")
        .body(Full::from("hello"))
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let body = answer.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    let told = String::from_utf8(body.to_bytes().to_vec()).unwrap();
    assert!(told.contains(r#"te=Some("trailers")"#), "{told}");
}

#[tokio::test]
async fn trailers_of_a_request_reach_a_target_that_speaks_http2() {
    const TRAILED: &str = "POST /x HTTP/1.1\r\nhost: llm.example\r\nconnection: close\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n\
        5\r\nhello\r\n0\r\nx-sum: 7\r\nauthorization: k\r\nx-gateway-destination-endpoint: 192.0.2.1:1\r\n\r\n";
    let (target, _) = telling(None).await;
    let route = TestRoute::to(&[refusing().await, target]);
    for route in [route.clone(), route.streaming()] {
        let proxy = reaching(&route, prior_knowledge()).await;
        let answer = raw(proxy.address, TRAILED).await;
        assert!(answer.contains(r#"hop=false hello {"x-sum": "7"}"#), "{answer}");

        let proxy = reaching(&route, TargetProtocol::default()).await;
        let answer = raw(proxy.address, TRAILED).await;
        assert!(
            answer.contains("HTTP/1.1 /x") && answer.contains("hello {}"),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn over_tls_the_certificate_is_checked_and_alpn_chooses() {
    let (server, roots) = pair(&["h2", "http/1.1"]);
    let (target, _) = telling(Some(TlsAcceptor::from(server))).await;
    for (offered, name, seen) in [
        ("h2", "localhost", "HTTP/2.0 https://llm.example/x?y=1"),
        ("http/1.1", "localhost", "HTTP/1.1 /x?y=1"),
        ("h2", "other.example", "502 Bad Gateway"),
    ] {
        let mut config = ClientConfig::builder()
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![offered.into()];
        let tls = Some(TargetTls {
            config: Arc::new(config),
            server_name: Some(ServerName::try_from(name).unwrap()),
        });
        let protocol = TargetProtocol {
            tls,
            ..TargetProtocol::default()
        };
        let proxy = reaching(&TestRoute::to(&[target]), protocol).await;
        let answer = raw(proxy.address, REQUEST).await;
        assert!(answer.contains(seen), "{name} by {offered}: {answer}");
    }
}

/// Type of the frame that opens a stream (RFC 9113 §6.2).
const HEADERS: u8 = 1;

/// Reads what a client sends first and answers each stream with `RST_STREAM` (`REFUSED_STREAM`).
async fn refusing_streams(target: Target) {
    loop {
        let mut connection = target.accept().await;
        tokio::spawn(async move {
            let mut preface = [0; 24];
            connection.0.read_exact(&mut preface).await?;
            // SETTINGS, empty.
            connection.0.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await?;
            loop {
                let mut head = [0; 9];
                connection.0.read_exact(&mut head).await?;
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                connection.0.read_exact(&mut vec![0; length]).await?;
                if head[3] == HEADERS {
                    let mut reset = vec![0, 0, 4, 3, 0];
                    reset.extend_from_slice(&head[5..9]);
                    reset.extend_from_slice(&7_u32.to_be_bytes());
                    connection.0.write_all(&reset).await?;
                }
            }
            #[expect(unreachable_code, reason = "names the type of the block")]
            std::io::Result::Ok(())
        });
    }
}

#[tokio::test]
async fn a_refused_stream_moves_to_the_next_target() {
    let refuser = Target::start().await;
    let address = refuser.address;
    let refuser = tokio::spawn(refusing_streams(refuser));
    let (target, _) = telling(None).await;
    let route = TestRoute::to(&[address, target]);
    let proxy = reaching(&route, prior_knowledge()).await;
    for _ in 0..2 {
        let answer = raw(proxy.address, REQUEST).await;
        assert!(answer.contains("HTTP/2.0 http://llm.example"), "{answer}");
    }
    assert_eq!(route.outcome().await, Outcome::Complete);
    refuser.abort();
}

#[tokio::test]
async fn a_slow_reader_holds_an_http2_target_back() {
    const TOTAL: usize = 64 * 1024 * 1024;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let route = TestRoute::to(&[listener.local_addr().unwrap()]);
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let large = service_fn(|_: Request<Incoming>| async {
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(vec![b'x'; TOTAL]))))
        });
        auto::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), large)
            .await
            .map_err(drop)
    });
    let proxy = reaching(&route, prior_knowledge()).await;
    let sender = http2(client(proxy.address).await).await;
    let mut body = crate::support::send(&sender, "hello").await.into_body();
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        let held = route.pulled.load(Ordering::Relaxed) - read;
        assert!(
            held < 3 * 1024 * 1024,
            "{held} bytes are held for a client that did not ask"
        );
        read += frame.unwrap().into_data().unwrap().len();
    }
    assert_eq!(read, TOTAL);
}

#[tokio::test]
async fn many_requests_at_once_leave_one_connection_kept() {
    let (target, connections) = telling(None).await;
    let route = TestRoute::to(&[target]);
    let limits = Limits {
        idle_connections_per_target: 1,
        ..Limits::default()
    };
    let proxy = proxy_with(&route, limits, |server| {
        server.reaching_targets_by(prior_knowledge())
    })
    .await;
    let sender = http2(client(proxy.address).await).await;
    let answers = (0..250).map(|_| {
        let sender = sender.clone();
        tokio::spawn(async move { text(crate::support::send(&sender, "hello").await).await })
    });
    for answer in answers.collect::<Vec<_>>() {
        assert!(answer.await.unwrap().ends_with("hello {}"));
    }
    // At the start each request that finds no connection opens one; one of them is kept.
    let opened = connections.load(Ordering::Relaxed);
    assert!(raw(proxy.address, REQUEST).await.contains("hello"));
    assert_eq!(connections.load(Ordering::Relaxed), opened);
}
