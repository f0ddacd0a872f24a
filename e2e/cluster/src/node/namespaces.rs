//! The namespaces and the network of a node.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

use super::Node;
use crate::components::Components;
use crate::poll::poll_until;

/// What the first process of a node does: `$1` is the node's folder, `$2` its name.
/// It stays as the parent of orphans, which `wait` of the shell reaps.
const INIT: &str = r#"
set -eu
dir=$1 name=$2
hostname "$name"
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$dir/state"
cd "$dir/state"
mkdir containerd kubelet networks volumes lib work
# programs keep what they like below /var/lib; the host never sees it
mount -t overlay -o "lowerdir=/var/lib,upperdir=$PWD/lib,workdir=$PWD/work" overlay /var/lib
for folder in /run /var/log; do
  mount -t tmpfs -o mode=755 tmpfs "$folder"
done
ip link set lo up
echo 1 >/proc/sys/net/ipv4/ip_forward
: >"$dir/made"
while :; do sleep 3600 & wait; done
"#;

/// Makes the namespaces and returns the number of their first process.
pub(super) async fn make(components: &Components, dir: &Path, number: u8) -> anyhow::Result<u32> {
    make_cgroups(components, dir, number)?;
    std::fs::create_dir(dir.join("state"))?;
    let name = format!("node-n{number}");
    let mut command = Command::new("unshare");
    command
        .args(["--net", "--mount", "--pid", "--uts", "--ipc"])
        .args(["--fork", "--kill-child", "--mount-proc", "--"])
        .args(["sh", "-c", INIT, "llmd-e2e-node"])
        .arg(dir)
        .arg(format!("n{number}"));
    let unshare = components.start(&name, &command)?;
    let made = dir.join("made");
    poll_until(&name, || async {
        if let Err(ended) = components.check(&name) {
            return Some(Err(ended));
        }
        made.exists().then(|| only_child(unshare))
    })
    .await?
}

/// The folder of a cluster in each cgroup hierarchy: the name of its run folder.
pub(super) fn cluster_cgroup(node_dir: &Path) -> String {
    let run = node_dir.ancestors().nth(2).and_then(Path::file_name);
    format!("/{}", run.unwrap_or_default().to_string_lossy())
}

/// Makes the cgroups of the cluster and of the node.
fn make_cgroups(components: &Components, dir: &Path, number: u8) -> anyhow::Result<()> {
    let root = Path::new("/sys/fs/cgroup");
    let name = cluster_cgroup(dir);
    if number == 1 {
        // of version 2 beside version 1 nobody needs any, but containers get one there too
        components.removes_cgroup(&root.join("unified").join(name.trim_start_matches('/')))?;
    }
    for hierarchy in hierarchies(root)? {
        let cluster = format!("{}{name}", hierarchy.display());
        let node = format!("{cluster}/n{number}");
        if number == 1 {
            components.removes_cgroup(Path::new(&cluster))?;
        }
        std::fs::create_dir_all(&node).with_context(|| format!("cannot make {node}"))?;
        for folder in [&cluster, &node] {
            delegate(&hierarchy, Path::new(folder))?;
        }
    }
    Ok(())
}

/// One folder per hierarchy: all of version 1, or the only one of version 2.
fn hierarchies(root: &Path) -> anyhow::Result<Vec<std::path::PathBuf>> {
    if root.join("cgroup.controllers").exists() {
        return Ok(vec![root.to_path_buf()]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root)?.flatten() {
        // `cpu` may be a link to `cpu,cpuacct`; `unified` is version 2 beside version 1, which nobody uses
        let kind = entry.file_type()?;
        if kind.is_dir() && entry.file_name() != "unified" {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Lets children of a new cgroup have resources.
fn delegate(hierarchy: &Path, folder: &Path) -> anyhow::Result<()> {
    let parent = folder.parent().unwrap_or(hierarchy);
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if folder.join(file).exists() && hierarchy.join("tasks").exists() {
            std::fs::write(folder.join(file), std::fs::read(parent.join(file))?)?;
        }
    }
    let control = folder.join("cgroup.subtree_control");
    if control.exists() {
        for controller in ["cpuset", "cpu", "io", "memory", "pids", "hugetlb"] {
            let add = format!("+{controller}");
            // a controller that the kernel lacks is one that the kubelet does without
            let _ = std::fs::write(parent.join("cgroup.subtree_control"), &add);
            let _ = std::fs::write(&control, &add);
        }
    }
    Ok(())
}

/// `eth0` of the first node is a bridge, which also kernels without `dummy` have; `eth0` of any other is one end of a
/// pair whose far end is on that bridge. Each node has a route to each other's pods.
pub(super) fn connect(node: &Node, others: &[Node]) -> anyhow::Result<()> {
    let (number, pid, address) = (node.number, node.pid, node.address());
    let mut own = vec!["ip link add eth0 type bridge".to_owned()];
    if let Some(first) = others.first() {
        own.clear();
        script(
            first,
            &format!(
                "ip link add v{number} type veth peer name eth0 netns {pid}
                 ip link set v{number} master eth0
                 ip link set v{number} up"
            ),
        )?;
    }
    own.push(format!("ip address add {address}/24 dev eth0"));
    own.push("ip link set eth0 up".to_owned());
    // nobody is there; addresses of Services need any route
    own.push("ip route add default via 10.0.0.254".to_owned());
    own.push("echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables".to_owned());
    for other in others {
        own.push(format!("ip route add {} via {}", other.pods(), other.address()));
        script(other, &format!("ip route add {} via {address}", node.pods()))?;
    }
    script(node, &own.join("\n"))
}

fn script(node: &Node, text: &str) -> anyhow::Result<()> {
    let mut shell = node.network_command("sh");
    let output = shell
        .args(["-euc", text])
        .output()
        .context("cannot start nsenter")?;
    if !output.status.success() {
        bail!(
            "cannot make the network of a node: {}\n{text}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

/// The process that `parent` has started.
fn only_child(parent: u32) -> anyhow::Result<u32> {
    let wanted = parent.to_string();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let Some((head, tail)) = stat.rsplit_once(") ") else {
            continue;
        };
        if tail.split(' ').nth(1) == Some(wanted.as_str()) {
            let pid = head.split(' ').next().unwrap_or_default();
            return pid.parse().context("a process number");
        }
    }
    bail!("process {parent} has no child")
}
