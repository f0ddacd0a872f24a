//! `llmd bundle`.

use std::process::Command;

use super::{DEPLOYMENT, namespace, run};

#[tokio::test]
async fn the_archive_has_the_story_and_no_secret() {
    let namespace = namespace().await;
    namespace.apply(DEPLOYMENT).await.unwrap();
    namespace
        .apply(
            "
apiVersion: v1
kind: Secret
metadata: {name: token, labels: {llmd.dev/deployment: chat}}
stringData: {key: canary}
---
apiVersion: v1
kind: Pod
metadata: {name: chat-decode-0, labels: {llmd.dev/deployment: chat}}
spec: {containers: [{name: engine, image: i, env: [{name: PASSWORD, value: canary}]}]}
",
        )
        .await
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("out.tar.gz");
    let archive = archive.to_str().unwrap();
    let (code, said, complaint) = run(&namespace, &["bundle", "chat", "--file", archive]).await;
    assert_eq!(code, 0, "{complaint}");
    assert!(said.contains("no Secrets"), "{said}");

    let tar = |arguments: &[&str]| {
        let done = Command::new("tar").args(arguments).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    };
    let names = tar(&["-tzf", archive]);
    for part in [
        "llmdeployment.yaml",
        "status.yaml",
        "versions.yaml",
        "pods/chat-decode-0.yaml",
        "missing.txt",
    ] {
        assert!(names.contains(part), "{part} is not in {names}");
    }
    let content = tar(&["-xzOf", archive]);
    assert!(content.contains("PASSWORD") && content.contains("test/model"));
    assert!(!content.contains("canary"), "a secret got into the archive");
}
