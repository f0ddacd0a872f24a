//! The official clients, and where requests go.

use std::collections::BTreeSet;

use llmd_e2e::tools;

use crate::journey;

use super::support::{Up, chat, deployment, engine};

/// Longest prompt, in bytes; the engines take some thousand tokens.
const LONGEST: usize = 20_004;

#[test]
fn the_python_client_talks_to_it_streaming_and_not() {
    let up = Up::file(&deployment(2, &[]));
    assert_eq!(
        tools::python(&journey::python(LONGEST), &up.url).trim(),
        "test/model"
    );
}

#[test]
fn the_node_client_talks_to_it_streaming_and_not() {
    let up = Up::file(&deployment(2, &[]));
    assert_eq!(tools::node(&journey::node(LONGEST), &up.url).trim(), "test/model");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_common_prefix_sticks_and_different_prompts_spread() {
    let up = Up::file(&deployment(2, &[]));
    up.wait_for_engines(&["test-decode-0", "test-decode-1"]);
    let prefix = "You are a patient assistant who answers in full sentences. ".repeat(40);
    let first = engine(&up.chat(&format!("{prefix} What is one?"), 4).await);
    for question in ["What is two?", "What is three?", "What is four?"] {
        assert_eq!(engine(&up.chat(&format!("{prefix} {question}"), 4).await), first);
    }
    let different = (0..16).map(|number| {
        let prompt = format!("{number} ").repeat(400);
        async move { chat(up.address, "test/model", &prompt, 16).await.unwrap() }
    });
    let answers = futures_util::future::join_all(different).await;
    let engines: BTreeSet<String> = answers.iter().map(engine).collect();
    assert_eq!(engines.len(), 2, "{engines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_file_two_simulated_engines_answer() {
    let up = Up::with(&[]);
    let models = llmd_e2e::http::get(up.address, "/v1/models")
        .await
        .unwrap()
        .json();
    let model = models["data"][0]["id"].as_str().unwrap().to_owned();
    let answer = chat(up.address, &model, "hello", 4).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(up.rows().values().filter(|row| row["router"] == false).count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_asked_for_when_one_is_given() {
    let up = Up::file_with(&deployment(1, &[]), &["--bind", "0.0.0.0", "--api-key", "s3cret"]);
    assert_eq!(up.chat("hello", 2).await.status, 401);
    let body = super::support::body("test/model", "hello", 2, false);
    let headers = [("authorization", "Bearer s3cret")];
    let answer = llmd_e2e::http::post(up.address, "/v1/chat/completions", body, &headers)
        .await
        .unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(
        !up.process.log().iter().any(|line| line.contains("s3cret")),
        "the key is in no log"
    );
}
