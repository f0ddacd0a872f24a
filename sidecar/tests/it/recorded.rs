//! What was recorded between this sidecar and real engines, replayed: the engines' part by their recorded answers.
//! `e2e/real-vllm/record.py` writes the files.

use axum::body::Body;
use http::Response;
use serde_json::Value;

use crate::Sidecar;
use crate::engine::{Engine, request, send};

const VLLM: &str = include_str!("../frames/vllm-0.32.json");

/// An engine that answers as it did.
async fn engine(leg: &Value) -> Engine {
    let recorded = leg.as_array().expect("a leg").clone();
    assert!(recorded.len() <= 1, "asked once");
    Engine::start(move |got| {
        let once = recorded.first().expect("this engine was not asked");
        assert_eq!(got.path, once["path"]);
        let status = once["status"]
            .as_u64()
            .and_then(|status| u16::try_from(status).ok());
        Response::builder()
            .status(status.expect("a status"))
            .header(
                "content-type",
                once["headers"]["content-type"].as_str().expect("a type"),
            )
            .body(Body::from(once["answered"].as_str().expect("text").to_owned()))
            .expect("valid")
    })
    .await
}

/// The legs that real engines took are the ones that they get today, and clients get the same answers.
#[tokio::test]
async fn legs_and_answers_are_as_with_real_vllm() {
    let recorded: Value = serde_json::from_str(VLLM).expect("JSON");
    let exchanges = recorded["exchanges"].as_array().expect("exchanges");
    assert!(exchanges.len() >= 5, "{}", exchanges.len());
    for exchange in exchanges {
        let name = exchange["name"].as_str().expect("a name");
        let (prefill, decode) = (
            engine(&exchange["prefill"]).await,
            engine(&exchange["decode"]).await,
        );
        let sidecar = Sidecar::start("", &[decode.address]).await;
        let to = [("x-prefiller-host-port", prefill.address.to_string())];
        let path = exchange["path"].as_str().expect("a path");
        let (status, headers, answer) = send(
            sidecar.addresses[0],
            request(path, &to, &exchange["asked"].to_string()),
        )
        .await;
        for (leg, engine) in [("prefill", &prefill), ("decode", &decode)] {
            let got: Vec<Value> = engine
                .got()
                .iter()
                .map(|got| serde_json::from_str(&got.body).expect("JSON"))
                .collect();
            let wanted = exchange[leg].as_array().expect("a leg").iter();
            let wanted: Vec<Value> = wanted.map(|leg| leg["asked"].clone()).collect();
            assert_eq!(got, wanted, "{name}: {leg}");
        }
        assert_eq!(status.as_u16(), exchange["status"], "{name}");
        assert_eq!(
            headers["content-type"],
            exchange["headers"]["content-type"].as_str().expect("a type"),
            "{name}"
        );
        assert_eq!(answer, exchange["answered"].as_str().expect("text"), "{name}");
    }
}
