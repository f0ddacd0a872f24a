//! Prompts whose tokens a vLLM is asked for, over ext-proc and through the built-in proxy.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use crate::empty_pool::send;
use crate::engine::{Engine, Script};
use crate::picker::{Call, head, request_body};
use crate::role::{PORTS, Role, proxy_port};

/// Tokens of two blocks.
const TOKENS: u32 = 128;

#[derive(Clone, Copy)]
enum Manner {
    /// The same tokens for every prompt.
    Equal,
    Refuses,
    /// Never answers.
    Silent,
}

type Asked = Arc<Mutex<Vec<(String, Value)>>>;

/// A vLLM that only renders.
struct Renderer {
    address: SocketAddr,
    asked: Asked,
    _serving: AbortOnDropHandle<()>,
}

impl Renderer {
    async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("binds");
        let address = listener.local_addr().expect("bound");
        let asked = Asked::default();
        let pages = Router::new()
            .fallback(render)
            .with_state((manner, Arc::clone(&asked)));
        let serving = tokio::spawn(async move {
            axum::serve(listener, pages).await.expect("serves");
        });
        Self {
            address,
            asked,
            _serving: AbortOnDropHandle::new(serving),
        }
    }
}

async fn render(State((manner, asked)): State<(Manner, Asked)>, uri: Uri, body: Bytes) -> Response {
    let body = serde_json::from_slice(&body).expect("JSON");
    asked.lock().expect("log").push((uri.path().to_owned(), body));
    let prompt = json!({"token_ids": (0..TOKENS).collect::<Vec<u32>>()});
    match manner {
        Manner::Equal if uri.path().contains("chat") => prompt.to_string().into_response(),
        Manner::Equal => json!([prompt]).to_string().into_response(),
        Manner::Refuses => (StatusCode::BAD_REQUEST, "no such model").into_response(),
        Manner::Silent => std::future::pending().await,
    }
}

struct Site {
    role: Role,
    proxy: SocketAddr,
    engines: Vec<Engine>,
    _directory: tempfile::TempDir,
}

fn config(directory: &Path, engines: &[Engine], renderer: SocketAddr, timeout: &str) -> String {
    let entries = engines.iter().enumerate().map(|(index, engine)| {
        let (address, port) = (engine.address.ip(), engine.address.port());
        json!({"name": format!("engine-{index}"), "address": address, "port": port.to_string()})
    });
    let list = directory.join("endpoints.yaml");
    let text = json!({"endpoints": entries.collect::<Vec<_>>()}).to_string();
    std::fs::write(&list, text).expect("written");
    let text = json!({
        "apiVersion": "llm-d.ai/v1alpha1",
        "kind": "EndpointPickerConfig",
        "plugins": [
            {"type": "token-producer", "parameters": {"modelName": "rendered/m",
                "vllm": {"url": format!("http://{renderer}"), "timeout": timeout}}},
            {"type": "prefix-cache-scorer"},
            {"type": "file-discovery", "parameters": {"path": list}},
        ],
        "dataLayer": {"discovery": {"pluginRef": "file-discovery"}},
    });
    let config = directory.join("config.yaml");
    std::fs::write(&config, text.to_string()).expect("written");
    config.display().to_string()
}

async fn site(renderer: SocketAddr, timeout: &str) -> Site {
    let directory = tempfile::tempdir().expect("a directory");
    let mut engines = Vec::new();
    for _ in 0..4 {
        engines.push(Engine::start(Script::Json).await);
    }
    let config = config(directory.path(), &engines, renderer, timeout);
    let port = proxy_port();
    let role = Role::start(format!(
        "{PORTS} --secure-serving=false --pool-name=pool --config-file={config} --tracing=false \
         --proxy-bind-address=127.0.0.1 --proxy-port={port}"
    ))
    .await;
    let proxy = role.addresses.proxy.expect("a proxy");
    Site {
        role,
        proxy,
        engines,
        _directory: directory,
    }
}

fn chat(prompt: &str) -> String {
    json!({"model": "m", "messages": [{"role": "user", "content": prompt}]}).to_string()
}

#[tokio::test]
async fn equal_tokens_go_to_one_endpoint_whatever_the_text_is() {
    let renderer = Renderer::start(Manner::Equal).await;
    let site = site(renderer.address, "30s").await;
    for number in 0..8 {
        let (status, _, body) = send(site.proxy, "POST", chat(&format!("{number} is new")).into()).await;
        assert_eq!(status, 200, "{body}");
    }
    let served: Vec<usize> = site
        .engines
        .iter()
        .map(|engine| engine.received().len())
        .collect();
    let home = served.iter().position(|requests| *requests == 8);
    let home = home.unwrap_or_else(|| panic!("one engine has them all: {served:?}"));

    let mut call = Call::open(Role::channel(site.role.addresses.grpc.port()).await).await;
    let body = chat("over ext-proc");
    call.request(&[], &[body.as_bytes()]).await;
    let forwarded = call.forwarded().await;
    assert_eq!(
        forwarded.set("x-gateway-destination-endpoint"),
        Some(site.engines[home].address.to_string())
    );
    assert_eq!(
        forwarded.body,
        body.as_bytes(),
        "only the renderer sees its model"
    );

    let asked = renderer.asked.lock().expect("log").clone();
    assert_eq!(asked.len(), 9);
    let mut wanted: Value = serde_json::from_str(&chat("0 is new")).expect("JSON");
    wanted["model"] = "rendered/m".into();
    assert_eq!(asked[0], ("/v1/chat/completions/render".to_owned(), wanted));
}

#[tokio::test]
async fn token_ids_are_not_asked_for() {
    let renderer = Renderer::start(Manner::Equal).await;
    let site = site(renderer.address, "30s").await;
    let ask = async |prompt: Value| {
        let body = json!({"model": "m", "prompt": prompt}).to_string();
        let mut call = Call::open(Role::channel(site.role.addresses.grpc.port()).await).await;
        call.send(head(&[(":path", "/v1/completions"), (":method", "POST")], false))
            .await;
        call.send(request_body(body.as_bytes(), true)).await;
        call.forwarded().await;
        renderer.asked.lock().expect("log").len()
    };
    assert_eq!(ask(json!([1, 2, 3])).await, 0);
    assert_eq!(ask(json!("text")).await, 1);
    assert_eq!(renderer.asked.lock().expect("log")[0].0, "/v1/completions/render");
}

#[tokio::test]
async fn requests_go_on_without_an_answer() {
    let refusing = Renderer::start(Manner::Refuses).await;
    let silent = Renderer::start(Manner::Silent).await;
    let gone = Renderer::start(Manner::Equal).await.address;
    for renderer in [refusing.address, silent.address, gone] {
        let site = site(renderer, "50ms").await;
        let (status, _, body) = send(site.proxy, "POST", chat("a").into()).await;
        assert_eq!(status, 200, "{body}");
        let mut call = Call::open(Role::channel(site.role.addresses.grpc.port()).await).await;
        let body = chat("b");
        call.request(&[], &[body.as_bytes()]).await;
        assert_eq!(call.forwarded().await.body, body.as_bytes());
    }
    assert_eq!(refusing.asked.lock().expect("log").len(), 2);
    assert_eq!(
        silent.asked.lock().expect("log").len(),
        1,
        "the second one does not wait for nothing"
    );
}
