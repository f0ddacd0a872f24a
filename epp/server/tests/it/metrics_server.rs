//! A metrics server that can misbehave, be killed and come back on its port.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use llmd_epp_api::{EndpointName, EndpointSpec};

/// How requests are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Proper,
    Chunked,
    CloseEachTime,
    Status(u16),
    /// Never answers.
    Silent,
    /// Closes in the middle of the body.
    HalfPage,
    /// Announces a body that is larger than anybody may send.
    Huge,
}

struct State {
    manner: Manner,
    page: Mutex<String>,
    requests: AtomicUsize,
    connections: AtomicUsize,
}

pub(crate) struct MetricsServer {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    serving: Option<AbortOnDropHandle<()>>,
}

/// A vLLM page with these values.
pub(crate) fn vllm_page(waiting: u32, running: u32, kv: f64) -> String {
    format!(
        "# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{{engine=\"0\"}} {waiting}.0\n\
         # TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{{engine=\"0\"}} {running}.0\n\
         # TYPE vllm:kv_cache_usage_perc gauge\nvllm:kv_cache_usage_perc{{engine=\"0\"}} {kv}\n\
         # TYPE vllm:cache_config_info gauge\nvllm:cache_config_info{{block_size=\"16\",num_gpu_blocks=\"100\"}} 1.0\n"
    )
}

impl MetricsServer {
    pub(crate) async fn start(manner: Manner, page: String) -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), manner, page).await
    }

    pub(crate) async fn start_at(address: SocketAddr, manner: Manner, page: String) -> Self {
        let listener = TcpListener::bind(address).await.expect("binds");
        let mut server = Self {
            address: listener.local_addr().expect("address"),
            state: Arc::new(State {
                manner,
                page: Mutex::new(page),
                requests: AtomicUsize::new(0),
                connections: AtomicUsize::new(0),
            }),
            serving: None,
        };
        server.serve(listener);
        server
    }

    pub(crate) async fn proper() -> Self {
        Self::start(Manner::Proper, vllm_page(1, 2, 0.5)).await
    }

    fn serve(&mut self, listener: TcpListener) {
        let state = Arc::clone(&self.state);
        let task = async move {
            // Dropped with the task, so that a kill breaks every connection.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(converse(Arc::clone(&state), stream));
            }
        };
        self.serving = Some(AbortOnDropHandle::new(tokio::spawn(task)));
    }

    /// Closes the port and every connection.
    pub(crate) async fn kill(&mut self) {
        if let Some(task) = self.serving.take() {
            task.abort();
            let _ = task.await;
        }
    }

    /// Serves on the same port again.
    pub(crate) async fn restart(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("binds again");
        self.serve(listener);
    }

    pub(crate) fn set_page(&self, page: String) {
        *self.state.page.lock().expect("page") = page;
    }

    pub(crate) fn requests(&self) -> usize {
        self.state.requests.load(Ordering::Relaxed)
    }

    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }

    pub(crate) fn spec(&self, name: &str) -> EndpointSpec {
        spec(name, self.address.port())
    }
}

/// An endpoint on loopback.
pub(crate) fn spec(name: &str, port: u16) -> EndpointSpec {
    EndpointSpec {
        name: EndpointName::new("default", name),
        pod: name.into(),
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        port,
        rank: 0,
        reach: llmd_epp_api::Reach::default(),
        labels: std::collections::BTreeMap::new(),
    }
}

async fn converse(state: Arc<State>, mut stream: TcpStream) {
    state.connections.fetch_add(1, Ordering::Relaxed);
    let mut pending = Vec::new();
    loop {
        while !pending.windows(4).any(|window| window == b"\r\n\r\n") {
            if !matches!(stream.read_buf(&mut pending).await, Ok(read) if read > 0) {
                return;
            }
        }
        pending.clear();
        state.requests.fetch_add(1, Ordering::Relaxed);
        if answer(&state, &mut stream).await.is_err() {
            return;
        }
        if matches!(
            state.manner,
            Manner::CloseEachTime | Manner::HalfPage | Manner::Huge
        ) {
            return;
        }
    }
}

async fn answer(state: &State, stream: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
    let page = state.page.lock().expect("page").clone();
    let length = page.len();
    let text = match state.manner {
        Manner::Proper => format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{page}"),
        Manner::Chunked => {
            let (first, second) = page.split_at(length / 3);
            format!(
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{first}\r\n{:X}\r\n{second}\r\n0\r\n\r\n",
                first.len(),
                second.len()
            )
        }
        Manner::CloseEachTime => format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{page}"),
        Manner::Status(status) => format!("HTTP/1.1 {status} No\r\ncontent-length: 4\r\n\r\nsorr"),
        Manner::Silent => return std::future::pending().await,
        Manner::HalfPage => {
            format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{}",
                &page[..length / 2]
            )
        }
        Manner::Huge => format!("HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n{page}"),
    };
    stream.write_all(text.as_bytes()).await
}
