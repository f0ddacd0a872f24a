//! Configuration files of a node's programs.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::image;
use crate::keys::Authority;

/// Where the DNS server says that it is ready, on the first node.
pub(super) const DNS_READY: u16 = 8181;

/// containerd 1.6 or newer with the CNI bridge plugin.
pub(super) fn containerd(dir: &Path, pods: &str) -> anyhow::Result<PathBuf> {
    let cni = dir.join("cni");
    std::fs::create_dir_all(&cni)?;
    let network = json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
                // pods keep their addresses: there is no outside to hide them from
                "ipMasq": false,
                "ipam": {"type": "host-local", "dataDir": dir.join("state/networks"), "ranges": [[{"subnet": pods}]], "routes": [{"dst": "0.0.0.0/0"}]},
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    });
    write(&cni.join("pods.conflist"), &network)?;
    // Without CAP_SYS_RESOURCE nothing may lower its score for the OOM killer: `restrict_oom_score_adj`.
    let config = format!(
        r#"version = 2
root = "{state}/containerd"
oom_score = 0
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.tracing"]
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
disable_apparmor = true
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{cni}"
"#,
        pause = image::PAUSE,
        cni = cni.display(),
        state = dir.join("state").display(),
    );
    let path = dir.join("containerd.toml");
    std::fs::write(&path, config)?;
    Ok(path)
}

/// `user` names the certificate that is both client and server.
pub(super) fn kubelet(dir: &Path, cgroup: &str, keys: &Authority, user: &str) -> anyhow::Result<PathBuf> {
    let resolv = dir.join("resolv.conf");
    std::fs::write(&resolv, "")?;
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup,
        "cgroupsPerQOS": true,
        "enforceNodeAllocatable": [],
        "failSwapOn": false,
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "resolvConf": resolv,
        "volumePluginDir": dir.join("state/volumes"),
        "clusterDomain": "cluster.local",
        "clusterDNS": ["10.0.0.1"],
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": keys.file("ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": keys.file(&format!("{user}.crt")),
        "tlsPrivateKeyFile": keys.file(&format!("{user}.key")),
        // images and logs lie on tmpfs, whose size says nothing
        "evictionHard": {
            "memory.available": "50Mi",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "imagefs.available": "0%",
        },
        "imageGCHighThresholdPercent": 100,
        "localStorageCapacityIsolation": false,
        "nodeStatusUpdateFrequency": "5s",
        "syncFrequency": "10s",
        "maxPods": 250,
        "serializeImagePulls": false,
    });
    let path = dir.join("kubelet.json");
    write(&path, &config)?;
    Ok(path)
}

/// Conntrack values are zero: they are not a namespace's to set.
pub(super) fn kube_proxy(dir: &Path, node: &str, keys: &Authority) -> anyhow::Result<PathBuf> {
    let config = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clusterCIDR": "10.244.0.0/16",
        "hostnameOverride": node,
        "clientConnection": {"kubeconfig": keys.file("proxy.conf")},
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "iptables": {"minSyncPeriod": "100ms"},
    });
    let path = dir.join("kube-proxy.json");
    write(&path, &config)?;
    Ok(path)
}

/// A DNS server for the cluster's names; there is no outside to forward to.
pub(super) fn corefile(dir: &Path, kubeconfig: &Path) -> anyhow::Result<PathBuf> {
    let text = format!(
        "cluster.local:53 in-addr.arpa:53 {{
    bind 10.0.0.1
    errors
    ready 10.0.0.1:{DNS_READY}
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {}
        ttl 5
    }}
    cache 5
}}
",
        kubeconfig.display()
    );
    let path = dir.join("Corefile");
    std::fs::write(&path, text)?;
    Ok(path)
}

fn write(path: &Path, value: &Value) -> anyhow::Result<()> {
    Ok(std::fs::write(path, value.to_string())?)
}
