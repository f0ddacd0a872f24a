//! A small HTTP client, and a simulator that is quick enough for tests.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use llmd_sim::{SimArgs, SimConfig, Simulator};
use serde_json::Value;

/// Limit on anything a test waits for.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) fn args() -> SimArgs {
    let mut args = SimArgs::for_model("m");
    args.time_to_first_token = Some(Duration::from_millis(1));
    args.inter_token_latency = Some(Duration::from_micros(200));
    args.max_model_len = 1024;
    args
}

pub(crate) async fn start(change: impl FnOnce(&mut SimArgs)) -> Simulator {
    let mut args = args();
    change(&mut args);
    let config: SimConfig = args.config().unwrap();
    Simulator::start(config).await.unwrap()
}

pub(crate) async fn send(
    address: SocketAddr,
    method: Method,
    path: &str,
    body: &str,
) -> hyper::Result<Response<Incoming>> {
    send_to(address, method, path, body, &[]).await
}

/// The same with more headers.
pub(crate) async fn send_to(
    address: SocketAddr,
    method: Method,
    path: &str,
    body: &str,
    headers: &[(&str, &str)],
) -> hyper::Result<Response<Incoming>> {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "sim")
        .header("x-request-id", "abc");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request
        .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
        .unwrap();
    tokio::time::timeout(DEADLINE, sender.send_request(request))
        .await
        .expect("no response head in time")
}

pub(crate) async fn text(response: Response<Incoming>) -> String {
    let body = tokio::time::timeout(DEADLINE, response.into_body().collect())
        .await
        .expect("no whole body in time");
    String::from_utf8(body.unwrap().to_bytes().to_vec()).unwrap()
}

pub(crate) async fn get(simulator: &Simulator, path: &str) -> (u16, String) {
    let response = send(simulator.address(), Method::GET, path, "").await.unwrap();
    (response.status().as_u16(), text(response).await)
}

pub(crate) async fn post(simulator: &Simulator, path: &str, body: &Value) -> (u16, Value) {
    let response = send(simulator.address(), Method::POST, path, &body.to_string())
        .await
        .unwrap();
    let status = response.status().as_u16();
    (status, serde_json::from_str(&text(response).await).unwrap())
}

/// The events of a stream, `[DONE]` checked and left out.
pub(crate) async fn events(simulator: &Simulator, path: &str, body: &Value) -> Vec<Value> {
    let response = send(simulator.address(), Method::POST, path, &body.to_string())
        .await
        .unwrap();
    assert_eq!(
        response.headers()["content-type"],
        "text/event-stream; charset=utf-8"
    );
    let text = text(response).await;
    let mut data: Vec<&str> = text
        .split("\n\n")
        .filter_map(|event| event.strip_prefix("data: "))
        .collect();
    assert_eq!(data.pop(), Some("[DONE]"));
    data.into_iter()
        .map(|event| serde_json::from_str(event).unwrap())
        .collect()
}

/// Value of a metric, labels not compared.
async fn metric(simulator: &Simulator, series: &str) -> f64 {
    let (_, page) = get(simulator, "/metrics").await;
    let line = page
        .lines()
        .find(|line| line.starts_with(series))
        .unwrap_or_else(|| panic!("no {series} in\n{page}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// Waits until a metric has a value.
pub(crate) async fn wait_for_metric(simulator: &Simulator, series: &str, expected: f64) {
    let start = std::time::Instant::now();
    loop {
        let value = metric(simulator, series).await;
        if (value - expected).abs() < 1e-9 {
            return;
        }
        assert!(start.elapsed() < DEADLINE, "{series} is {value}, not {expected}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
