//! Between an operator and the API server: passes requests on, counts writes, and holds one back for ever.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use kube::client::Body;
use tokio::net::TcpListener;
use tokio::sync::Notify;

/// Which write gets no answer.
#[derive(Clone, Copy, Debug)]
pub enum Held {
    /// None.
    Nothing,
    /// The one of this number, from 1 on, which the API server never sees.
    Before(usize),
    /// The one of this number, which the API server has done.
    After(usize),
}

/// A relay that ends with its guard.
pub struct Relay {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

struct Shared {
    client: kube::Client,
    held: Held,
    writes: AtomicUsize,
    reached: Notify,
}

impl Relay {
    /// Acts as the client's user.
    pub async fn start(client: kube::Client, held: Held) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            client,
            held,
            writes: AtomicUsize::new(0),
            reached: Notify::new(),
        });
        let serving = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let shared = Arc::clone(&serving);
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let shared = Arc::clone(&shared);
                        async move { Ok::<_, Infallible>(pass(&shared, request).await) }
                    });
                    // Ends when the operator is killed.
                    let _ = auto::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self {
            address,
            shared,
            task,
        }
    }

    /// Writes so far.
    pub fn writes(&self) -> usize {
        self.shared.writes.load(Ordering::Relaxed)
    }

    /// Returns when the held write is reached.
    pub async fn reached(&self) {
        self.shared.reached.notified().await;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(shared: &Shared, request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body = body
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default();
    let number = match head.method {
        Method::GET | Method::HEAD => 0,
        _ => shared.writes.fetch_add(1, Ordering::Relaxed) + 1,
    };
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut onward = Request::builder().method(head.method).uri(path);
    for name in ["accept", "content-type", "user-agent"] {
        if let Some(value) = head.headers.get(name) {
            onward = onward.header(name, value);
        }
    }
    if matches!(shared.held, Held::Before(held) if held == number) {
        hold(shared).await;
    }
    let answer = shared
        .client
        .send(onward.body(Body::from(body.to_vec())).unwrap())
        .await;
    if matches!(shared.held, Held::After(held) if held == number) {
        hold(shared).await;
    }
    answer.unwrap_or_else(|error| {
        let mut answer = Response::new(Body::from(error.to_string().into_bytes()));
        *answer.status_mut() = hyper::StatusCode::BAD_GATEWAY;
        answer
    })
}

async fn hold(shared: &Shared) {
    shared.reached.notify_one();
    std::future::pending::<()>().await;
}
