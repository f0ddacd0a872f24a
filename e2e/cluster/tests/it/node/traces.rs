//! What a cluster with real nodes leaves on the host: nothing.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use llmd_e2e_cluster::{Cluster, poll_until};

#[tokio::test]
async fn nothing_is_left_on_the_host() {
    let cluster = Cluster::node(2).without_our_crds().await.unwrap();
    let run_folder = cluster.kubeconfig().ancestors().nth(2).unwrap().to_path_buf();
    let mark = run_folder.file_name().unwrap().to_str().unwrap().to_owned();
    // Other clusters of this test binary come and go meanwhile, so only traces of this one are compared.
    assert!(cgroups().iter().any(|group| group.contains(&mark)));
    assert!(processes().iter().any(|process| process.contains(&mark)));
    let while_running = host();
    cluster.on_node(2, "/bin/true", [""; 0]).await.unwrap();

    drop(cluster);
    assert!(!run_folder.exists());
    poll_until("the end of all processes", || async {
        processes()
            .iter()
            .all(|process| !process.contains(&mark))
            .then_some(())
    })
    .await
    .unwrap();
    assert!(
        cgroups().iter().all(|group| !group.contains(&mark)),
        "cgroups of {mark} are left"
    );
    // Nothing reached the host's network and mounts in the first place.
    for part in &while_running {
        assert!(
            !part.contains("cni0") && !part.contains("KUBE-") && !part.contains(&mark),
            "{part}"
        );
    }
    for part in host() {
        assert!(
            !part.contains("cni0") && !part.contains("KUBE-") && !part.contains(&mark),
            "{part}"
        );
    }
}

#[tokio::test]
async fn nothing_is_left_of_a_killed_one_either() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("held.json");
    // `true` is packed in place of llmd
    let mut holder = Command::new(env!("CARGO_BIN_EXE_llmd-cluster"))
        .args([
            "hold",
            "--nodes",
            "real",
            "--count",
            "1",
            "--binary",
            "/bin/true",
            "--state",
        ])
        .arg(&state)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let held = poll_until("a cluster", || async { std::fs::read(&state).ok() })
        .await
        .unwrap();
    let held: serde_json::Value = serde_json::from_slice(&held).unwrap();
    let kubeconfig = PathBuf::from(held["kubeconfig"].as_str().unwrap());
    let run_folder = kubeconfig.ancestors().nth(2).unwrap();
    let mark = run_folder.file_name().unwrap().to_str().unwrap();
    assert!(cgroups().iter().any(|group| group.contains(mark)));

    holder.kill().unwrap();
    holder.wait().unwrap();
    poll_until("the end of everything", || async {
        let processes = processes().iter().any(|process| process.contains(mark));
        let cgroups = cgroups().iter().any(|group| group.contains(mark));
        (!processes && !cgroups && !run_folder.exists()).then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_killed_node_is_noticed_and_the_others_go_on() {
    let cluster = Cluster::node(2).without_our_crds().await.unwrap();
    cluster.kill_node(2).await.unwrap();
    let lost = [
        "wait",
        "--for=condition=Ready=Unknown",
        "node/n2",
        "--timeout=120s",
    ];
    cluster.kubectl(lost).await.unwrap();
    cluster
        .kubectl(["wait", "--for=condition=Ready=True", "node/n1", "--timeout=60s"])
        .await
        .unwrap();
    assert!(
        cluster
            .kill_node(1)
            .await
            .unwrap_err()
            .to_string()
            .contains("control plane")
    );
}

/// Links, rules and mounts of the host.
fn host() -> Vec<String> {
    let said = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output().unwrap();
        assert!(output.status.success(), "{program}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    vec![
        said("ip", &["-brief", "link"]),
        said("ip", &["route"]),
        said("iptables-save", &[]),
        std::fs::read_to_string("/proc/self/mounts").unwrap(),
    ]
}

fn cgroups() -> BTreeSet<String> {
    let output = Command::new("find")
        .args(["/sys/fs/cgroup", "-type", "d"])
        .output()
        .unwrap();
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

fn processes() -> BTreeSet<String> {
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| std::fs::read(entry.ok()?.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .collect()
}
