//! `kubectl llmd`: kubectl finds the program on the PATH by its name.

use std::os::unix::fs::symlink;
use std::process::Command;

use llmd_e2e::process::llmd_bin;
use llmd_e2e_cluster::artifacts;

use super::{DEPLOYMENT, namespace};

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_runs_the_program_that_is_called_kubectl_llmd() {
    let namespace = namespace().await;
    namespace.apply(DEPLOYMENT).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    symlink(llmd_bin(), folder.path().join("kubectl-llmd")).unwrap();
    let kubectl = |arguments: &[&str]| {
        // nothing else on the PATH: what runs is found there
        let done = Command::new(artifacts::program("kube").unwrap())
            .arg("kubectl")
            .args(arguments)
            .env("PATH", folder.path())
            .env("KUBECONFIG", namespace.cluster().kubeconfig())
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (done.status.code(), text(done.stdout), text(done.stderr))
    };
    let (_, listed, _) = kubectl(&["plugin", "list"]);
    assert!(listed.contains("kubectl-llmd"), "{listed}");

    let place = format!("--namespace={}", namespace.name());
    let (code, said, complaint) = kubectl(&["llmd", "status", "chat", &place]);
    assert!(said.contains("chat"), "{code:?} {said} {complaint}");
    let direct = super::run(&namespace, &["status", "chat"]).await;
    assert_eq!((code, said), (Some(direct.0), direct.1));

    let (code, _, complaint) = kubectl(&["llmd", "status", "nobody", &place]);
    assert!(code != Some(0) && complaint.contains("nobody"), "{complaint}");
}
