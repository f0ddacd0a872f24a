//! Request bodies arrive byte for byte, but for a rewritten model name.

use std::fmt::Write;

use llmd_e2e::http;

use super::{CHAT, Stack, short_answer};

/// Sizes of the pieces in which bodies are sent, in turn: none of them is convenient.
const ODD: [usize; 6] = [1, 7, 4093, 65_537, 13, 30_011];

const REWRITE: (&str, &str) = ("x-llm-d-model-name-rewrite", "a-model-with-a-longer-name");

/// A request of about `size` bytes with everything that a decoder would change: big integers,
/// member order, escapes, white space, a `model` that is not the model, repeated exponents.
fn request(model: &str, size: usize) -> String {
    let (head, tail) = (
        format!(
            "{{ \"seed\" : 12345678901234567890123, \"z\":1e400,\"a\":-0.0, \"metadata\":{{\"model\":\"not-me\"}},\n\t\"model\" :\t\"{model}\",\
             \"messages\":[{{\"content\":\"caf\\u00e9 \\/ \\ud83d\\ude00 "
        ),
        "\",\"role\":\"user\"}],\"temperature\":0.70000000000000000001 }\n",
    );
    let mut body = head;
    let mut word = 0_u64;
    while body.len() + tail.len() < size {
        word = word
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        write!(body, "{:x} ", word >> 40).unwrap();
    }
    body.push_str(tail);
    body
}

async fn arrives(stack: &Stack, size: usize) {
    let sent = request("short", size);
    let answer = http::post_chunked_with(stack.envoy.address, CHAT, sent.as_bytes(), &ODD, &[REWRITE], "")
        .await
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{size} bytes: {answer}");
    let recorded = stack.upstreams[0].take().expect("one request");
    let expected = request(REWRITE.1, size + REWRITE.1.len() - "short".len());
    // Not assert_eq: a message of 20 MB helps nobody.
    assert!(
        recorded.body == expected.as_bytes(),
        "{size} bytes were changed on the way"
    );
}

async fn all_sizes(secure: bool) {
    let stack = Stack::start_with(vec![short_answer()], secure).await;
    for size in [400, 62_000, 62_001, 1_200_000, 20_000_000] {
        arrives(&stack, size).await;
    }
    stack.epp.wait_for_in_flight(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_in_odd_chunks_keep_every_byte() {
    all_sizes(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_in_odd_chunks_keep_every_byte_over_tls() {
    all_sizes(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_byte_on_a_path_without_a_model_passes() {
    let stack = Stack::start(vec![short_answer()]).await;
    let answer = http::post(stack.envoy.address, "/upload", "x", &[])
        .await
        .unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(&stack.upstreams[0].take().expect("one request").body[..], b"x");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_a_body_is_routed() {
    let stack = Stack::start(vec![short_answer()]).await;
    let answer = http::get(stack.envoy.address, "/v1/models").await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(stack.upstreams[0].take().expect("one request").path, "/v1/models");
}

/// From about 1 MB on, Envoy may send a second message that ends the body
/// (envoyproxy/envoy #46237).
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_ends_twice_is_answered_once() {
    let stack = Stack::start(vec![short_answer()]).await;
    for size in [1 << 20, 1_200_000, 3_000_000, 8_000_000] {
        for _ in 0..3 {
            let sent = request("m", size);
            let answer = http::post(stack.envoy.address, CHAT, sent.clone(), &[])
                .await
                .unwrap();
            assert_eq!(answer.status, 200, "{size} bytes: {}", answer.text());
            assert!(stack.upstreams[0].take().expect("one request").body == sent.as_bytes());
        }
    }
    assert_eq!(stack.upstreams[0].count(), 0, "a request arrived twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_end_a_body() {
    let stack = Stack::start(vec![short_answer()]).await;
    for size in [400, 200_000] {
        let sent = request("m", size);
        let trailers = "x-checksum: 1\r\n";
        let answer = http::post_chunked(stack.envoy.address, CHAT, sent.as_bytes(), &ODD, trailers)
            .await
            .unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(stack.upstreams[0].take().expect("one request").body == sent.as_bytes());
    }
}
