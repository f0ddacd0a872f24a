//! A tiny OpenAI-compatible engine that records what it gets and can die at any point.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use llmd_epp_api::EndpointSpec;

use crate::metrics_server::{spec, vllm_page};

/// What happens after a request was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Script {
    /// One JSON answer that names the model of the request.
    Json,
    /// This many events, each after [`Engine::release`], then `[DONE]`.
    Events(usize),
    /// [`Script::Events`] for a request with `"stream":true`, [`Script::Json`] for others.
    AsAsked(usize),
    /// The connection closes without a byte.
    DieBeforeHead,
    /// One event, then the connection closes.
    DieAfterFirstEvent,
    /// A chat stream that closes in the middle of its third word.
    DieInChat,
    /// A chat stream with one word, usage and end; the connection closes before the end if asked for.
    EndChat { dies: bool },
}

/// One request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Received {
    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields
            .filter(|(have, _)| have.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .next()
    }
}

struct State {
    script: Script,
    received: Mutex<Vec<Received>>,
    gate: Semaphore,
    open: AtomicUsize,
    fails: AtomicBool,
}

pub(crate) struct Engine {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    serving: Option<AbortOnDropHandle<()>>,
}

impl Engine {
    pub(crate) async fn start(script: Script) -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), script).await
    }

    pub(crate) async fn start_at(address: SocketAddr, script: Script) -> Self {
        let listener = TcpListener::bind(address).await.expect("binds");
        let mut engine = Self {
            address: listener.local_addr().expect("address"),
            state: Arc::new(State {
                script,
                received: Mutex::new(Vec::new()),
                gate: Semaphore::new(0),
                open: AtomicUsize::new(0),
                fails: AtomicBool::new(false),
            }),
            serving: None,
        };
        engine.serve(listener);
        engine
    }

    fn serve(&mut self, listener: TcpListener) {
        let state = Arc::clone(&self.state);
        self.serving = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            // Dropped with the task, so that a kill breaks every connection.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&state);
                connections.spawn(async move {
                    state.open.fetch_add(1, Ordering::Relaxed);
                    let _ = converse(&state, stream).await;
                    state.open.fetch_sub(1, Ordering::Relaxed);
                });
            }
        })));
    }

    pub(crate) async fn kill(&mut self) {
        if let Some(task) = self.serving.take() {
            task.abort();
            let _ = task.await;
        }
    }

    pub(crate) async fn restart(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("binds again");
        self.serve(listener);
    }

    pub(crate) fn spec(&self, name: &str) -> EndpointSpec {
        spec(name, self.address.port())
    }

    /// Answers requests with 500 from now on, or no more; metrics are served all the same.
    pub(crate) fn fail(&self, fails: bool) {
        self.state.fails.store(fails, Ordering::Relaxed);
    }

    /// Lets one more event out.
    pub(crate) fn release(&self) {
        self.state.gate.add_permits(1);
    }

    /// Requests so far, metrics polls left out.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.state.received.lock().expect("log").clone()
    }

    /// Connections that are open now.
    pub(crate) fn open_connections(&self) -> usize {
        self.state.open.load(Ordering::Relaxed)
    }
}

async fn converse(state: &State, mut stream: TcpStream) -> std::io::Result<()> {
    let mut pending = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut pending).await? {
        if request.head.starts_with("GET /metrics ") {
            let page = vllm_page(0, 0, 0.0);
            write_json(&mut stream, &page).await?;
            continue;
        }
        let model = model_of(&request.body);
        let script = match state.script {
            Script::AsAsked(count) if wants_stream(&request.body) => Script::Events(count),
            Script::AsAsked(_) => Script::Json,
            script => script,
        };
        state.received.lock().expect("log").push(request);
        if state.fails.load(Ordering::Relaxed) {
            let answer = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer).await?;
            continue;
        }
        match script {
            Script::Json => {
                let usage = r#"{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}"#;
                write_json(
                    &mut stream,
                    &format!(r#"{{"id":"x","model":"{model}","usage":{usage}}}"#),
                )
                .await?;
            }
            Script::Events(count) => {
                write_event_head(&mut stream).await?;
                for number in 0..count {
                    // A client that goes away is seen as the end of our input.
                    let mut nothing = [0; 1];
                    tokio::select! {
                        permit = state.gate.acquire() => permit.expect("open").forget(),
                        _ = stream.read(&mut nothing) => return Ok(()),
                    }
                    write_chunk(
                        &mut stream,
                        &format!("data: {{\"n\":{number},\"model\":\"{model}\"}}\n\n"),
                    )
                    .await?;
                }
                write_chunk(&mut stream, "data: [DONE]\n\n").await?;
                stream.write_all(b"0\r\n\r\n").await?;
            }
            Script::AsAsked(_) | Script::DieBeforeHead => return Ok(()),
            Script::DieAfterFirstEvent => {
                write_event_head(&mut stream).await?;
                return write_chunk(&mut stream, "data: {\"n\":0}\n\n").await;
            }
            Script::DieInChat => {
                write_event_head(&mut stream).await?;
                let opening = chat_event("first", &model, r#"{"role":"assistant","content":""}"#, "null");
                write_chunk(&mut stream, &opening).await?;
                for word in ["One", " two", " three"] {
                    let event = chat_event("first", &model, &format!(r#"{{"content":"{word}"}}"#), "null");
                    let sent = if word == " three" {
                        event.len() / 2
                    } else {
                        event.len()
                    };
                    write_chunk(&mut stream, &event[..sent]).await?;
                }
                return Ok(());
            }
            Script::EndChat { dies } => {
                write_event_head(&mut stream).await?;
                let opening = chat_event("second", &model, r#"{"role":"assistant","content":""}"#, "null");
                write_chunk(&mut stream, &opening).await?;
                let word = chat_event("second", &model, r#"{"content":" three"}"#, "\"stop\"");
                write_chunk(&mut stream, &word).await?;
                if dies {
                    return Ok(());
                }
                let usage = format!(
                    "data: {{\"id\":\"second\",\"object\":\"chat.completion.chunk\",\"created\":2,\"model\":\"{model}\",\"choices\":[],\"usage\":{{\"prompt_tokens\":9,\"total_tokens\":10,\"completion_tokens\":1}}}}\n\n"
                );
                write_chunk(&mut stream, &usage).await?;
                write_chunk(&mut stream, "data: [DONE]\n\n").await?;
                stream.write_all(b"0\r\n\r\n").await?;
            }
        }
    }
    Ok(())
}

fn chat_event(id: &str, model: &str, delta: &str, finish: &str) -> String {
    format!(
        "data: {{\"id\":\"{id}\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"{model}\",\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":{finish}}}]}}\n\n"
    )
}

fn model_of(body: &[u8]) -> String {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    body["model"].as_str().unwrap_or_default().to_owned()
}

fn wants_stream(body: &[u8]) -> bool {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    body["stream"] == true
}

async fn read_request(stream: &mut TcpStream, pending: &mut Vec<u8>) -> std::io::Result<Option<Received>> {
    let head_end = loop {
        if let Some(at) = pending.windows(4).position(|window| window == b"\r\n\r\n") {
            break at;
        }
        if stream.read_buf(pending).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&pending[..head_end]).into_owned();
    let mut request = Received {
        head,
        body: Vec::new(),
    };
    let length = request
        .header("content-length")
        .map_or(0, |length| length.parse().expect("a length"));
    assert!(
        request.header("transfer-encoding").is_none(),
        "held bodies have a length"
    );
    while pending.len() < head_end + 4 + length {
        if stream.read_buf(pending).await? == 0 {
            return Ok(None);
        }
    }
    request.body = pending[head_end + 4..head_end + 4 + length].to_vec();
    pending.drain(..head_end + 4 + length);
    Ok(Some(request))
}

async fn write_json(stream: &mut TcpStream, body: &str) -> std::io::Result<()> {
    let length = body.len();
    let head =
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(format!("{head}{body}").as_bytes()).await
}

async fn write_event_head(stream: &mut TcpStream) -> std::io::Result<()> {
    stream
        .write_all(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
        )
        .await
}

async fn write_chunk(stream: &mut TcpStream, text: &str) -> std::io::Result<()> {
    stream
        .write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes())
        .await
}
