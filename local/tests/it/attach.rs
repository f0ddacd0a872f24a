//! Detection over real sockets.

use std::process::{Child, Command, Stdio};

use llmd_local::attach::{self, EngineType};
use llmd_local::probe::Prober;

use crate::support::{DEADLINE, fake_llmd};

struct Engine(Child, u16);

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn engine() -> Engine {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let child = Command::new("python3")
        .arg(fake_llmd())
        .args(["sim", &format!("--port={port}")])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let engine = Engine(child, port);
    let prober = Prober::default();
    let end = std::time::Instant::now() + DEADLINE;
    while prober
        .get(&format!("http://127.0.0.1:{port}/v1/models"), DEADLINE)
        .await
        .is_err()
    {
        assert!(std::time::Instant::now() < end, "the engine did not start");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    engine
}

#[tokio::test]
async fn a_server_without_metrics_is_attached_and_described_so() {
    let engine = engine().await;
    let url = format!("http://localhost:{}/v1", engine.1);
    let engines = attach::attach(&Prober::default(), &[url]).await.unwrap();
    assert_eq!((engines[0].kind, engines[0].metrics), (EngineType::OpenAi, false));
    assert_eq!(engines[0].models, ["m"]);
    let endpoints = attach::endpoints(&engines, "default");
    assert_eq!(endpoints[0].port, engine.1.to_string());
    assert_eq!(endpoints[0].labels[attach::MODELS_LABEL], "m");
}

#[tokio::test]
async fn what_cannot_be_attached_is_named() {
    let engine = engine().await;
    let good = format!("http://127.0.0.1:{}", engine.1);
    let refused = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let attach = async |urls: &[String]| {
        attach::attach(&Prober::default(), urls)
            .await
            .unwrap_err()
            .to_string()
    };
    let dead = format!("http://{refused}");
    let error = attach(&[good.clone(), dead.clone()]).await;
    assert!(
        error.contains(&dead) && error.contains("not reachable"),
        "{error}"
    );
    let error = attach(&[good.clone(), good.clone()]).await;
    assert!(error.contains("name each engine once"), "{error}");
    let error = attach(&["https://api.example.com".to_owned()]).await;
    assert!(error.contains("https"), "{error}");
}
