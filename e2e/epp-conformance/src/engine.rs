//! Engines that only show themselves: a metrics page and a list of models on a loopback address each.

use std::convert::Infallible;
use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::case::Member;

/// A running engine; ends with its guard.
#[derive(Debug)]
pub struct Engine {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    member: Mutex<Member>,
    scrapes: AtomicU64,
}

impl Engine {
    /// Starts on `port` of `127.0.0.(index + 1)`, 0 for a free one: subsets are told apart by their IP addresses alone.
    pub async fn start(index: usize, port: u16, member: Member) -> anyhow::Result<Self> {
        let host = Ipv4Addr::new(127, 0, 0, u8::try_from(index + 1)?);
        let listener = TcpListener::bind((host, port)).await?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            member: Mutex::new(member),
            scrapes: AtomicU64::new(0),
        });
        let served = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&served);
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let answer = answer(&request, &state);
                        async move { Ok::<_, Infallible>(answer) }
                    });
                    // A picker that goes away is no fault of the engine.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Ok(Self { address, state, task })
    }

    /// What it shows.
    pub fn member(&self) -> Member {
        self.state
            .member
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Shows something else from now on.
    pub fn set(&self, member: Member) {
        *self.state.member.lock().unwrap_or_else(PoisonError::into_inner) = member;
    }

    /// Scrapes answered so far.
    pub fn scrapes(&self) -> u64 {
        self.state.scrapes.load(Ordering::Acquire)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn answer(request: &Request<Incoming>, state: &State) -> Response<Full<Bytes>> {
    let member = state
        .member
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let (status, kind, body) = match request.uri().path() {
        "/metrics" => {
            state.scrapes.fetch_add(1, Ordering::AcqRel);
            if member.unscrapable {
                (StatusCode::NOT_FOUND, "text/plain", String::new())
            } else {
                (StatusCode::OK, "text/plain; version=0.0.4", page(&member))
            }
        }
        "/v1/models" => {
            let models: Vec<_> = member
                .models
                .iter()
                .map(|id| json!({"id": id, "object": "model"}))
                .collect();
            let list = json!({"object": "list", "data": models});
            (StatusCode::OK, "application/json", list.to_string())
        }
        _ => (StatusCode::NOT_FOUND, "text/plain", String::new()),
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert("content-type", hyper::header::HeaderValue::from_static(kind));
    response
}

/// The page of a vLLM in this state.
fn page(member: &Member) -> String {
    if let Some(page) = &member.page {
        return page.clone();
    }
    let mut page = String::new();
    let gauges = [
        ("vllm:num_requests_waiting", member.waiting),
        ("vllm:num_requests_running", member.running),
        ("vllm:kv_cache_usage_perc", member.kv),
    ];
    for (name, value) in gauges {
        // Writing to a string cannot fail.
        let _ = writeln!(page, "# TYPE {name} gauge\n{name}{{model_name=\"m\"}} {value}");
    }
    if !member.lora.is_empty() || !member.lora_waiting.is_empty() || member.lora_max.is_some() {
        let _ = writeln!(
            page,
            "# TYPE vllm:lora_requests_info gauge\nvllm:lora_requests_info{{max_lora=\"{}\",\
             running_lora_adapters=\"{}\",waiting_lora_adapters=\"{}\"}} 1700000000.5",
            member.lora_max.unwrap_or(4),
            member.lora.join(","),
            member.lora_waiting.join(","),
        );
    }
    if let Some((block_size, blocks)) = member.cache {
        let _ = writeln!(
            page,
            "# TYPE vllm:cache_config_info gauge\nvllm:cache_config_info{{block_size=\"{block_size}\",\
             num_gpu_blocks=\"{blocks}\"}} 1",
        );
    }
    page
}
