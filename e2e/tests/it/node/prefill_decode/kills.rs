//! An engine of a pair dies in the middle of its work: what its clients see, and what the others do not.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use http_body_util::BodyExt;
use llmd_e2e::http;
use llmd_e2e_cluster::{Namespace, poll_until, poll_within};
use serde_json::json;

use super::{BARE, DEADLINE, Load, metric_of, pods, ready};

/// Prompts take half a second, so that a prefill engine is in the middle of some whenever it is killed.
const SLOW: &str = "
apiVersion: llmd.dev/v1alpha1
kind: LLMDeployment
metadata: {name: pd}
spec:
  path: simulated-prefill-decode
  model: {name: test/model}
  engine: {args: {time-to-first-token: 500ms, inter-token-latency: 20ms}}
";

/// Streams that are read while something else happens.
const STREAMS: usize = 8;
const TOKENS: u32 = 400;

async fn kill(namespace: &Namespace, pod: &str) {
    namespace
        .kubectl(["delete", "pod", pod, "--force", "--grace-period=0"])
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefill_pod_that_is_killed_in_mid_prefill_fails_no_request() {
    let namespace = BARE.get().await.namespace().await.unwrap();
    let address = ready(&namespace, SLOW).await;
    let load = Load::start(address);
    for _ in 0..2 {
        let victim = poll_until("a prefill engine at work", || async {
            for pod in pods(&namespace, "prefill").await {
                if metric_of(&namespace, &pod, 8000, "vllm:num_requests_running").await > 0.0 {
                    return Some(pod);
                }
            }
            None
        })
        .await
        .unwrap();
        kill(&namespace, &victim).await;
        let asked = load.sent();
        poll_until("answers after it, and its successor", || async {
            let now = pods(&namespace, "prefill").await;
            let is_back = now.len() == 2 && !now.contains(&victim);
            (is_back && load.sent() > asked + 20).then_some(())
        })
        .await
        .unwrap();
    }
    load.finish().await;
}

/// A stream with the engine that sends it, read to its end; `None` where it has no proper one.
async fn stream(address: SocketAddr, number: usize) -> (String, Option<String>) {
    let body = json!({
        "model": "test/model", "max_tokens": TOKENS, "ignore_eos": true, "stream": true,
        "messages": [{"role": "user", "content": format!("stream {number}")}],
    });
    let request = http::json_request("/v1/chat/completions", body.to_string(), &[]).unwrap();
    let answer = http::open(address, request).await.unwrap();
    assert_eq!(answer.status(), 200);
    let engine = answer.headers()["x-inference-pod"].to_str().unwrap().to_owned();
    let read = tokio::time::timeout(DEADLINE, answer.into_body().collect());
    let whole = read.await.expect("an end, be it an error").ok();
    let text = whole.map(|whole| String::from_utf8_lossy(&whole.to_bytes()).into_owned());
    (engine, text.filter(|text| text.ends_with("data: [DONE]\n\n")))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decode_pod_that_is_killed_ends_its_own_streams_and_no_other() {
    let namespace = BARE.get().await.namespace().await.unwrap();
    let address = ready(&namespace, SLOW).await;
    let streams: Vec<_> = (0..STREAMS)
        .map(|number| tokio::spawn(stream(address, number)))
        .collect();
    let victim = poll_until("both decode engines with streams", || async {
        let pods = pods(&namespace, "decode").await;
        let mut busy = Vec::new();
        for pod in &pods {
            if metric_of(&namespace, pod, 8200, "vllm:generation_tokens_total").await > 0.0 {
                busy.push(pod.clone());
            }
        }
        (busy.len() == 2).then(|| busy.remove(0))
    })
    .await
    .unwrap();
    kill(&namespace, &victim).await;
    let mut ended: BTreeMap<bool, usize> = BTreeMap::new();
    for stream in streams {
        let (engine, text) = stream.await.unwrap();
        let is_whole = text.is_some();
        assert_eq!(
            is_whole,
            engine != victim,
            "a stream of {engine}, {victim} was killed"
        );
        *ended.entry(is_whole).or_default() += 1;
    }
    assert_eq!(ended.len(), 2, "streams of both engines: {ended:?}");
    // Nobody else notices.
    let load = Load::start(address);
    poll_until("answers", || async { (load.sent() > 30).then_some(()) })
        .await
        .unwrap();
    load.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_is_scaled_during_a_rollout_follows_at_once() {
    let namespace = BARE.get().await.namespace().await.unwrap();
    ready(&namespace, SLOW).await;
    let patch = async |patch: &str| {
        namespace
            .kubectl(["patch", "llmd/pd", "--type=merge", "-p", patch])
            .await
            .unwrap();
    };
    patch(r#"{"spec":{"engine":{"args":{"seed":"7"}}}}"#).await;
    let wanted = async |role: &str| -> Vec<i32> {
        let selector = format!("-lllmd.dev/pool={role}");
        let said = namespace
            .kubectl([
                "get",
                "deployments",
                &selector,
                "-ojsonpath={.items[*].spec.replicas}",
            ])
            .await
            .unwrap_or_default();
        said.split_whitespace()
            .filter_map(|count| count.parse().ok())
            .collect()
    };
    poll_until("two revisions of the decode engines", || async {
        (wanted("decode").await.len() == 2).then_some(())
    })
    .await
    .unwrap();
    patch(r#"{"spec":{"pools":[{"name":"decode","replicas":4}]}}"#).await;
    // The limit of the promise, not of the test.
    poll_within(
        "four decode engines are asked for",
        std::time::Duration::from_secs(5),
        || async {
            let wanted = wanted("decode").await;
            (wanted.iter().sum::<i32>() >= 4).then_some(())
        },
    )
    .await
    .unwrap();
    poll_until("one revision with all of them", || async {
        (wanted("decode").await == [4] && wanted("prefill").await == [2]).then_some(())
    })
    .await
    .unwrap();
}
