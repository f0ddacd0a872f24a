//! What this machine lacks for real nodes.

use std::path::Path;
use std::process::Command;

/// Prints what is missing, a line each, from namespaces of its own. The folder `$1` is a fresh one.
const SCRIPT: &str = r#"
mount --make-rprivate / || echo "private mounts"
ip link add b0 type bridge 2>/dev/null || echo "network links of type bridge (kernel module bridge)"
ip link add v0 type veth peer name v1 2>/dev/null || echo "network links of type veth (kernel module veth)"
[ -e /proc/sys/net/bridge/bridge-nf-call-iptables ] || echo "filtering of bridged packets (kernel module br_netfilter)"
rule() { iptables -w 5 -t "$@" 2>/dev/null || echo "iptables: $*"; }
rule nat -A POSTROUTING -m comment --comment x -m conntrack --ctstate NEW -m addrtype --dst-type LOCAL -m mark --mark 0x4000/0x4000 -j MASQUERADE --random-fully
rule nat -A OUTPUT -p tcp -m statistic --mode random --probability 0.5 -j DNAT --to-destination 10.0.0.1:1
rule nat -A OUTPUT -m recent --name x --rcheck --seconds 10 -j MARK --or-mark 0x4000
rule nat -A POSTROUTING -m physdev ! --physdev-is-in -j RETURN
mount -t tmpfs tmpfs "$1" || echo "mounts of type tmpfs"
mkdir -p "$1/l" "$1/u" "$1/w" "$1/m"
mount -t overlay overlay -o "lowerdir=$1/l,upperdir=$1/u,workdir=$1/w" "$1/m" 2>/dev/null || echo "overlay on tmpfs (kernel module overlay)"
"#;

/// Programs of `build.sh packages`.
const PROGRAMS: [(&str, &str); 6] = [
    ("/usr/bin/containerd", "containerd"),
    ("/usr/sbin/runc", "runc"),
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
    ("/usr/sbin/iptables", "iptables"),
    ("/usr/sbin/conntrack", "conntrack"),
    ("/usr/bin/nsenter", "util-linux"),
];

/// Empty when real nodes can run here; else what is missing, for people.
pub(crate) fn missing() -> Vec<String> {
    if !nix::unistd::geteuid().is_root() {
        return vec!["root".to_owned()];
    }
    let packages: Vec<&str> = PROGRAMS
        .iter()
        .filter(|(path, _)| !Path::new(path).exists())
        .map(|(_, package)| *package)
        .collect();
    if !packages.is_empty() {
        return vec![format!("Debian packages: {}", packages.join(" "))];
    }
    let Ok(folder) = tempfile::tempdir() else {
        return vec!["a writable folder for temporary files".to_owned()];
    };
    let output = Command::new("unshare")
        .args(["--net", "--mount", "--pid", "--uts", "--ipc"])
        .args(["--fork", "--kill-child", "--mount-proc", "--"])
        .args(["sh", "-c", SCRIPT, "llmd-e2e-probe"])
        .arg(folder.path())
        .output();
    match output {
        Ok(output) if output.status.success() || !output.stdout.is_empty() => {
            String::from_utf8_lossy(&output.stdout)
                .lines()
                .map(str::to_owned)
                .collect()
        }
        Ok(output) => vec![format!(
            "new namespaces: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )],
        Err(error) => vec![format!("unshare: {error}")],
    }
}
