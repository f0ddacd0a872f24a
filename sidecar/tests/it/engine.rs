//! An engine that keeps what it got and answers as told, and a client.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

/// One request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Got {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("text"))
    }
}

type Answer = Arc<dyn Fn(&Got) -> Response<Body> + Send + Sync>;

/// A running engine.
pub(crate) struct Engine {
    pub(crate) address: SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
}

impl Engine {
    pub(crate) async fn start(answer: impl Fn(&Got) -> Response<Body> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("binds");
        let address = listener.local_addr().expect("bound");
        let got: Arc<Mutex<Vec<Got>>> = Arc::default();
        let (kept, answer): (_, Answer) = (Arc::clone(&got), Arc::new(answer));
        let router = Router::new().fallback(move |request: Request| {
            let (kept, answer) = (Arc::clone(&kept), Arc::clone(&answer));
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.expect("a body").to_bytes();
                let got = Got {
                    path: head.uri.path().to_owned(),
                    headers: head.headers,
                    body: String::from_utf8(body.to_vec()).expect("text"),
                };
                kept.lock().expect("kept").push(got.clone());
                answer(&got)
            }
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, got }
    }

    /// An engine that answers every request with this.
    pub(crate) async fn saying(status: u16, body: &'static str) -> Self {
        Self::start(move |_| json(status, body)).await
    }

    pub(crate) fn got(&self) -> Vec<Got> {
        self.got.lock().expect("kept").clone()
    }
}

pub(crate) fn json(status: u16, body: &'static str) -> Response<Body> {
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(Body::from(body))
        .expect("valid")
}

/// Where nobody listens.
pub(crate) async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("binds");
    listener.local_addr().expect("bound")
}

/// Sends one request on a connection of its own.
pub(crate) async fn send(
    to: SocketAddr,
    request: http::Request<Full<Bytes>>,
) -> (StatusCode, HeaderMap, String) {
    let stream = TcpStream::connect(to).await.expect("connects");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .expect("speaks");
    tokio::spawn(connection);
    let response = sender.send_request(request).await.expect("answers");
    let (head, body) = response.into_parts();
    let body = body.collect().await.expect("a whole body").to_bytes();
    (
        head.status,
        head.headers,
        String::from_utf8(body.to_vec()).expect("text"),
    )
}

/// A request with these headers; GET without a body.
pub(crate) fn request(path: &str, headers: &[(&str, String)], body: &str) -> http::Request<Full<Bytes>> {
    let method = if body.is_empty() { "GET" } else { "POST" };
    let mut request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("host", "model");
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    request
        .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
        .expect("valid")
}
