//! What is left after a cluster: nothing.

use std::path::Path;

use llmd_e2e_cluster::Cluster;

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

fn processes_that_mention(text: &str) -> usize {
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| std::fs::read(Path::new(&entry.ok()?.path()).join("cmdline")).ok())
        .filter(|line| String::from_utf8_lossy(line).contains(text))
        .count()
}
