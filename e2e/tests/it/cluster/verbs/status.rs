//! `llmd status`.

use llmd_e2e::poll::DEADLINE;
use llmd_e2e::process::Process;
use llmd_e2e_cluster::Namespace;
use nix::sys::signal::Signal;
use serde_json::json as object;

use super::{DEPLOYMENT, json, namespace, run};

async fn write_status(namespace: &Namespace, what: &str, status: &serde_json::Value) {
    let patch = object!({ "status": status }).to_string();
    let arguments = [
        "patch",
        what,
        "--subresource=status",
        "--type=merge",
        "--patch",
        &patch,
    ];
    namespace.kubectl(arguments).await.unwrap();
}

fn ready(status: &str, reason: &str, message: &str) -> serde_json::Value {
    object!({"observedGeneration": 1, "conditions": [{
        "type": "Ready", "status": status, "reason": reason, "message": message,
        "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1,
    }]})
}

#[tokio::test]
async fn it_goes_from_the_verdict_to_its_cause() {
    let namespace = namespace().await;
    namespace.apply(DEPLOYMENT).await.unwrap();
    let look = ["status", "chat", "--output=json"];
    let (code, said, complaint) = run(&namespace, &look).await;
    assert_eq!((code, complaint.as_str()), (1, ""));
    assert_eq!(json(&said)["reason"], "NotObserved");

    namespace
        .apply(
            "
apiVersion: v1
kind: Pod
metadata: {name: chat-decode-0, labels: {llmd.dev/deployment: chat}}
spec: {containers: [{name: engine, image: i}]}
",
        )
        .await
        .unwrap();
    let pending = object!({"phase": "Pending", "conditions": [{
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
        "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
    }]});
    write_status(&namespace, "pod/chat-decode-0", &pending).await;
    write_status(
        &namespace,
        "llmd/chat",
        &ready("False", "Unschedulable", "no room"),
    )
    .await;
    let (code, said, _) = run(&namespace, &look).await;
    let seen = json(&said);
    assert_eq!(
        (code, &seen["ready"], &seen["reason"]),
        (1, &false.into(), &"Unschedulable".into())
    );
    let cause = seen["pods"][0]["cause"]["message"].as_str().unwrap();
    assert!(cause.contains("nvidia.com/gpu"), "{cause}");
    let (code, text, _) = run(&namespace, &["status", "chat"]).await;
    assert_eq!(code, 1);
    for part in [
        "not ready (Unschedulable)",
        "no room",
        "chat-decode-0",
        "nvidia.com/gpu",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }

    write_status(&namespace, "llmd/chat", &ready("True", "Ready", "")).await;
    assert_eq!(run(&namespace, &look).await.0, 0);
    // a change that the operator has not seen is not ready, whatever the conditions say
    let change = [
        "patch",
        "llmd/chat",
        "--type=merge",
        "--patch",
        r#"{"spec":{"model":{"name":"n"}}}"#,
    ];
    namespace.kubectl(change).await.unwrap();
    let (code, said, _) = run(&namespace, &look).await;
    assert_eq!((code, &json(&said)["reason"]), (1, &"Outdated".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn watching_shows_a_change_and_ends_with_an_interrupt() {
    let namespace = namespace().await;
    namespace.apply(DEPLOYMENT).await.unwrap();
    let kubeconfig = namespace.cluster().kubeconfig().display().to_string();
    let mut watch = Process::llmd([
        "status",
        "chat",
        "--watch",
        "--kubeconfig",
        &kubeconfig,
        "--namespace",
        namespace.name(),
    ]);
    let said = |part: &'static str| move |line: &str| line.contains(part).then_some(());
    watch.wait_for_line("the first look", said("not ready (NotObserved)"));
    write_status(&namespace, "llmd/chat", &ready("True", "Ready", "")).await;
    watch.wait_for_line("the change", said(": ready (Ready)"));
    watch.signal(Signal::SIGINT);
    // ready when it ended
    assert_eq!(watch.wait(DEADLINE).code(), Some(0));
}
