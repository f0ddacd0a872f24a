//! Attaching servers that already run.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use llmd_e2e::{Process, http, poll_until_async};
use tokio::net::TcpListener;

use super::support::{DEADLINE, Up, chat, engine, llmd};

/// A simulated engine on its own, with the name it answers with.
async fn simulator(name: &str, model: &str) -> (Process, SocketAddr) {
    let port = llmd_e2e::poll::free_port();
    let mut command = std::process::Command::new(llmd_e2e::process::llmd_bin());
    command
        .args(["sim", "--model", model, "--port", &port.to_string()])
        .env("POD_NAME", name);
    let process = Process::spawn(name, command);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    poll_until_async("the simulator", DEADLINE, || async move {
        http::get(address, "/v1/models")
            .await
            .ok()
            .filter(|answer| answer.status == 200)
    })
    .await;
    (process, address)
}

/// A server that knows `/v1/models` and chat, and nothing else: no metrics, no version.
async fn bare_server(name: &'static str, model: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(move |request: Request<hyper::body::Incoming>| async move {
                let (status, body) = match request.uri().path() {
                    "/v1/models" => (200, format!(r#"{{"object":"list","data":[{{"id":"{model}"}}]}}"#)),
                    "/v1/chat/completions" => {
                        (200, r#"{"choices":[],"usage":{"prompt_tokens":1}}"#.to_owned())
                    }
                    _ => (404, "{}".to_owned()),
                };
                Response::builder()
                    .status(status)
                    .header("content-type", "application/json")
                    .header("x-inference-pod", name)
                    .body(Full::new(Bytes::from(body)))
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn running_engines_are_routed_to_and_what_cannot_be_seen_is_said() {
    let (_sim, first) = simulator("sim-a", "test/model").await;
    let second = bare_server("bare-b", "test/model").await;
    let (first, second) = (format!("http://{first}"), format!("http://{second}/v1"));
    let mut up = tokio::task::block_in_place(|| Up::with(&["--engine", &first, "--engine", &second]));
    up.wait_for_note("vLLM");
    let note = up.wait_for_note("no metrics");
    assert!(note.contains(second.trim_end_matches("/v1")), "{note}");
    let answers = (0..24).map(|number| {
        let prompt = format!("{number} ").repeat(300);
        async move { chat(up.address, "test/model", &prompt, 8).await.unwrap() }
    });
    let answers = futures_util::future::join_all(answers).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    let engines: BTreeSet<String> = answers.iter().map(engine).collect();
    assert_eq!(engines, BTreeSet::from(["sim-a".to_owned(), "bare-b".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn engines_with_different_models_get_the_requests_for_their_model() {
    let (_one, first) = simulator("sim-a", "model-a").await;
    let (_two, second) = simulator("sim-b", "model-b").await;
    let (first, second) = (format!("http://{first}"), format!("http://{second}"));
    let up = tokio::task::block_in_place(|| Up::with(&["--engine", &first, "--engine", &second]));
    for turn in 0..4 {
        for (model, name) in [("model-a", "sim-a"), ("model-b", "sim-b")] {
            let answer = chat(up.address, model, &format!("turn {turn}"), 4).await.unwrap();
            assert_eq!((answer.status, engine(&answer).as_str()), (200, name));
        }
    }
    let page = http::get(up.address, "/v1/models").await.unwrap().json();
    let models: Vec<&str> = page["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| model["id"].as_str().unwrap())
        .collect();
    assert_eq!(models, ["model-a", "model-b"]);
    assert_eq!(chat(up.address, "model-c", "hello", 4).await.unwrap().status, 404);
}

#[test]
fn what_cannot_be_attached_is_refused_by_name() {
    let dead = format!("http://127.0.0.1:{}", llmd_e2e::poll::free_port());
    let (code, _, error) = llmd(&["up", "--engine", &dead, "--port", "0"]);
    assert_eq!(code, 3, "{error}");
    assert!(
        error.contains(&dead) && error.contains("not reachable"),
        "{error}"
    );
    let (code, _, error) = llmd(&["up", "--engine", "https://api.example.com", "--port", "0"]);
    assert!(code != 0 && error.contains("https://api.example.com"), "{error}");
}
