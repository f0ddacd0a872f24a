//! What is left after a cluster: nothing.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use llmd_e2e_cluster::{Cluster, poll_until};

#[tokio::test]
async fn a_dropped_cluster_leaves_no_process_and_no_folder() {
    let cluster = Cluster::control(1).await.unwrap();
    let folder = cluster.kubeconfig().ancestors().nth(2).unwrap().to_path_buf();
    assert!(folder.join("etcd").exists());
    let mark = folder.display().to_string();
    assert!(
        processes_that_mention(&mark) >= 5,
        "etcd, API server, two controllers, kwok"
    );

    drop(cluster);
    assert_eq!(processes_that_mention(&mark), 0);
    assert!(!folder.exists());
}

#[tokio::test]
async fn a_cluster_whose_process_is_killed_leaves_nothing_either() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("held.json");
    let mut holder = holder(&state);
    let held = poll_until("a cluster", || async { std::fs::read(&state).ok() })
        .await
        .unwrap();
    let held: serde_json::Value = serde_json::from_slice(&held).unwrap();
    let kubeconfig = PathBuf::from(held["kubeconfig"].as_str().unwrap());
    let run_folder = kubeconfig.ancestors().nth(2).unwrap();
    assert!(run_folder.join("etcd").exists());

    holder.kill().unwrap();
    holder.wait().unwrap();
    let mark = run_folder.display().to_string();
    poll_until("the end of everything", || async {
        (!run_folder.exists() && processes_that_mention(&mark) == 0).then_some(())
    })
    .await
    .unwrap();
}

/// Killed when the first, the second, … process of the cluster has come; the next one starts, and sweeps, meanwhile.
#[tokio::test]
async fn a_start_that_is_killed_at_any_step_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut folders = Vec::new();
    for processes in 0..=5 {
        let state = folder.path().join(format!("{processes}.json"));
        let mut holder = holder(&state);
        let run_folder = poll_until("so many processes of a cluster", || async {
            assert!(!state.exists(), "it has started, with fewer processes");
            let folders = run_folders(holder.id());
            folders
                .into_iter()
                .find(|folder| entries(&folder.join("processes")).len() >= processes)
        })
        .await
        .unwrap();
        holder.kill().unwrap();
        holder.wait().unwrap();
        folders.push(run_folder);
    }
    for run_folder in folders {
        let mark = run_folder.display().to_string();
        poll_until("the end of everything", || async {
            (!run_folder.exists() && processes_that_mention(&mark) == 0).then_some(())
        })
        .await
        .unwrap();
    }
}

/// A process that starts a cluster and holds it.
fn holder(state: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_llmd-cluster"))
        .args(["hold", "--nodes", "fake", "--count", "1"])
        .args(["--binary", "/bin/true", "--state"])
        .arg(state)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// The folders of the clusters of a process.
fn run_folders(pid: u32) -> Vec<PathBuf> {
    let prefix = format!("llmd-e2e-{pid}-");
    [PathBuf::from("/dev/shm"), std::env::temp_dir()]
        .iter()
        .flat_map(|base| entries(base))
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(&prefix))
        })
        .collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

fn processes_that_mention(text: &str) -> usize {
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| std::fs::read(Path::new(&entry.ok()?.path()).join("cmdline")).ok())
        .filter(|line| String::from_utf8_lossy(line).contains(text))
        .count()
}
