//! The harness itself: a real Envoy passes bytes through, the recording upstream records them.

use llmd_e2e::echo::{Echo, Reply};
use llmd_e2e::envoy::{Envoy, Options};
use llmd_e2e::{http, tools};

#[tokio::test]
async fn envoy_passes_bytes_to_a_recording_upstream() {
    let upstream = Echo::start(Reply::Body).await;
    let options = Options {
        ext_proc: false,
        fixed_upstreams: vec![upstream.address],
        ..Options::default()
    };
    let envoy = Envoy::start(upstream.address, &options).await;
    let answer = http::post_chunked(envoy.address, "/v1/x?y=1", b"odd chunks", &[1, 3], "")
        .await
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let recorded = upstream.take().expect("one request");
    assert_eq!(
        (&recorded.body[..], recorded.path.as_str()),
        (&b"odd chunks"[..], "/v1/x?y=1")
    );
}

#[test]
fn the_python_client_can_be_loaded() {
    assert!(tools::python("import openai; print(openai.__version__)", "").contains('.'));
}

#[test]
fn the_node_client_can_be_loaded() {
    let version = tools::node("import OpenAI from 'openai'; console.log(typeof OpenAI)", "");
    assert_eq!(version.trim(), "function");
}
