//! What a cluster with real nodes leaves on the host: nothing.

use std::collections::BTreeSet;
use std::process::Command;

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
