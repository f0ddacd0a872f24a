//! An engine of a pair dies in the middle of its work: what its clients see, and what the others do not.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use http_body_util::BodyExt;
use llmd_e2e::http;
use llmd_e2e_cluster::{Namespace, poll_until, poll_within};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::{Value, json};

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

/// Kills containers of a pod at once, as a fault would: no drain, no last word. The kubelet starts them again.
pub(super) async fn kill(namespace: &Namespace, pod: &str, containers: &[&str]) {
    let told = namespace.kubectl(["get", "pod", pod, "-ojson"]).await.unwrap();
    let told: Value = serde_json::from_str(&told).unwrap();
    let kinds = ["initContainerStatuses", "containerStatuses"];
    let all = kinds
        .iter()
        .filter_map(|kind| told["status"][kind].as_array())
        .flatten();
    for container in containers {
        let status = all.clone().find(|status| status["name"] == *container);
        let id = status.and_then(|status| status["containerID"].as_str()?.strip_prefix("containerd://"));
        let id = id.unwrap_or_else(|| panic!("{pod} has no {container}: {told}"));
        let processes: Vec<Pid> = processes(id).collect();
        assert!(!processes.is_empty(), "{container} of {pod} runs");
        for process in processes {
            nix::sys::signal::kill(process, Signal::SIGKILL).unwrap();
        }
    }
}

/// The processes of a container, whose id is in the name of their cgroup.
fn processes(container: &str) -> impl Iterator<Item = Pid> {
    let all = std::fs::read_dir("/proc").unwrap();
    let all = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    all.filter(move |pid| {
        let group = std::fs::read_to_string(format!("/proc/{pid}/cgroup"));
        group.is_ok_and(|group| group.contains(container))
    })
    .map(Pid::from_raw)
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
        kill(&namespace, &victim, &["modelserver"]).await;
        let asked = load.sent();
        poll_until("answers after it", || async {
            (load.sent() > asked + 20).then_some(())
        })
        .await
        .unwrap();
    }
    load.finish().await;
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Whole,
    /// An error event.
    Told,
    /// The connection was cut.
    Cut,
}

/// A stream with the engine that sends it, read to its end.
async fn stream(address: SocketAddr, number: usize) -> (String, End) {
    let body = json!({
        "model": "test/model", "max_tokens": TOKENS, "ignore_eos": true, "stream": true,
        "messages": [{"role": "user", "content": format!("stream {number}")}],
    });
    let request = http::json_request("/v1/chat/completions", body.to_string(), &[]).unwrap();
    let answer = http::open(address, request).await.unwrap();
    assert_eq!(answer.status(), 200);
    let engine = answer.headers()["x-inference-pod"].to_str().unwrap().to_owned();
    let read = tokio::time::timeout(DEADLINE, answer.into_body().collect());
    let Ok(whole) = read.await.expect("an end, be it an error") else {
        return (engine, End::Cut);
    };
    let text = String::from_utf8_lossy(&whole.to_bytes()).into_owned();
    let end = match text.trim_end().rsplit("\n\n").next() {
        Some("data: [DONE]") => End::Whole,
        Some(event) if event.contains("\"error\"") => End::Told,
        other => panic!("a stream of {engine} just ended: {other:?}"),
    };
    (engine, end)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decode_engine_that_is_killed_ends_its_own_streams_with_an_error_event() {
    a_decode_pod_dies(&["modelserver"], End::Told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decode_pod_that_is_killed_cuts_its_own_streams_and_no_other() {
    a_decode_pod_dies(&["routing-proxy", "modelserver"], End::Cut).await;
}

async fn a_decode_pod_dies(containers: &[&str], expected: End) {
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
    kill(&namespace, &victim, containers).await;
    let mut ended: BTreeMap<End, usize> = BTreeMap::new();
    for stream in streams {
        let (engine, end) = stream.await.unwrap();
        let wanted = if engine == victim { expected } else { End::Whole };
        assert_eq!(end, wanted, "a stream of {engine}; {victim} was killed");
        *ended.entry(end).or_default() += 1;
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
