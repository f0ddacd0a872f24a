//! Flags, order and readiness of etcd, API server, controller manager and scheduler.
//!
//! Each flag that is not obvious is there for a reason found by trying; see the comments.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use nix::sys::signal::Signal;

use crate::components::Components;
use crate::http_probe;
use crate::keys::Authority;
use crate::poll::poll_until;
use crate::ports::Ports;
use crate::relay::Relay;

/// First address of the Service range; the API server's own Service.
const API_SERVICE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1));
/// Address of the first real node, inside its network namespace.
pub(crate) const NODE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Where the control plane runs.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// Beside the test, on the loopback interface.
    Host,
    /// In the network namespace of this process.
    Node(u32),
}

/// What is needed to start each part again with the same flags.
#[derive(Debug)]
pub(crate) struct ControlPlane {
    dir: PathBuf,
    kube: PathBuf,
    place: Place,
    ports: Ports,
}

impl ControlPlane {
    /// Writes keys and kubeconfigs of a run folder.
    pub(crate) fn prepare(dir: &Path, kube: PathBuf, place: Place, keys: &Authority) -> anyhow::Result<Self> {
        let ports = match place {
            Place::Host => Ports::free()?,
            // nobody else is in the namespace
            Place::Node(_) => Ports::starting_at(6440),
        };
        let names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"];
        let names = [&names[..], &["kubernetes.default.svc.cluster.local", "localhost"]].concat();
        keys.sign(
            "apiserver",
            "apiserver",
            None,
            &names,
            &[LOOPBACK, API_SERVICE, NODE],
        )?;
        let masters = Some("system:masters");
        keys.sign("admin", "admin", masters, &[], &[])?;
        keys.sign("kubelet-client", "kube-apiserver", masters, &[], &[])?;
        // It acts as itself, not as one ServiceAccount per controller: that costs 4.5 s at the start.
        keys.sign("controllers", "system:kube-controller-manager", masters, &[], &[])?;
        keys.sign("scheduler", "system:kube-scheduler", None, &[], &[])?;
        keys.sign("proxy", "system:kube-proxy", None, &[], &[])?;
        keys.sign("front-proxy", "front-proxy-client", None, &[], &[])?;
        let plane = Self {
            dir: dir.to_path_buf(),
            kube,
            place,
            ports,
        };
        for user in ["admin", "controllers", "scheduler", "proxy"] {
            keys.kubeconfig(user, &plane.server())?;
        }
        Ok(plane)
    }

    /// Where the API server listens, as seen from [`Place`].
    pub(crate) fn server(&self) -> String {
        format!("https://{}", self.api())
    }

    /// The same as a socket address.
    pub(crate) fn api(&self) -> SocketAddr {
        SocketAddr::new(self.address(), self.ports.api)
    }

    fn address(&self) -> IpAddr {
        match self.place {
            Place::Host => LOOPBACK,
            Place::Node(_) => NODE,
        }
    }

    /// Where the LeaderWorkerSet manager serves its webhooks.
    pub(crate) fn lws(&self) -> SocketAddr {
        SocketAddr::new(self.address(), self.ports.lws)
    }

    /// A command in the right network namespace.
    pub(crate) fn program(&self, program: &Path) -> Command {
        match self.place {
            Place::Host => Command::new(program),
            Place::Node(pid) => {
                let mut command = Command::new("nsenter");
                command
                    .args(["--target", &pid.to_string(), "--net", "--"])
                    .arg(program);
                command
            }
        }
    }

    /// A component of the multi-call binary.
    fn command(&self, component: &str) -> Command {
        let mut command = self.program(&self.kube);
        command.arg(component);
        command
    }

    fn key(&self, name: &str) -> String {
        self.dir.join("pki").join(name).display().to_string()
    }

    /// Starts etcd and waits until it is healthy.
    pub(crate) async fn start_etcd(&self, components: &Components) -> anyhow::Result<()> {
        let client = format!("http://127.0.0.1:{}", self.ports.etcd);
        let peer = format!("http://127.0.0.1:{}", self.ports.etcd_peer);
        let mut command = self.command("etcd");
        command.args([
            "--name=e2e",
            "--unsafe-no-fsync",
            "--log-level=warn",
            // a single member on loopback: elect it at once
            "--heartbeat-interval=10",
            "--election-timeout=100",
        ]);
        command
            .arg(format!("--data-dir={}", self.dir.join("etcd").display()))
            .arg(format!("--listen-client-urls={client}"))
            .arg(format!("--advertise-client-urls={client}"))
            .arg(format!("--listen-peer-urls={peer}"))
            .arg(format!("--initial-advertise-peer-urls={peer}"))
            .arg(format!("--initial-cluster=e2e={peer}"));
        components.start("etcd", &command)?;
        let port = SocketAddr::new(LOOPBACK, self.ports.etcd);
        let (address, _relay) = match self.place {
            Place::Host => (port, None),
            Place::Node(pid) => {
                let relay = Relay::new(pid, port)?;
                (relay.address(), Some(relay))
            }
        };
        poll_until("etcd's health", || async move {
            let ended = components.check("etcd").err().map(Err);
            ended.or(http_probe::ok(address, "/health").await.map(Ok))
        })
        .await?
    }

    /// Starts the API server; [`crate::client::ready`] waits for it.
    pub(crate) fn start_apiserver(&self, components: &Components) -> anyhow::Result<()> {
        let mut command = self.command("kube-apiserver");
        command.args([
            "--storage-media-type=application/vnd.kubernetes.protobuf",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--authorization-mode=Node,RBAC",
            "--anonymous-auth=false",
            "--allow-privileged=true",
            // without these the controller manager and the scheduler complain for ever
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--enable-aggregator-routing=true",
            "--kubelet-preferred-address-types=InternalIP,Hostname",
            "--profiling=false",
            "--shutdown-delay-duration=0s",
        ]);
        // A loopback address may not be an endpoint.
        command.arg(match self.place {
            Place::Host => "--endpoint-reconciler-type=none",
            Place::Node(_) => "--endpoint-reconciler-type=lease",
        });
        command
            .arg(format!("--etcd-servers=http://127.0.0.1:{}", self.ports.etcd))
            .arg(format!("--bind-address={}", self.address()))
            .arg(format!("--advertise-address={}", self.address()))
            .arg(format!("--secure-port={}", self.ports.api));
        for (flag, file) in [
            ("tls-cert-file", "apiserver.crt"),
            ("tls-private-key-file", "apiserver.key"),
            ("client-ca-file", "ca.crt"),
            ("service-account-key-file", "sa.pub"),
            ("service-account-signing-key-file", "sa.key"),
            ("requestheader-client-ca-file", "ca.crt"),
            ("proxy-client-cert-file", "front-proxy.crt"),
            ("proxy-client-key-file", "front-proxy.key"),
            ("kubelet-certificate-authority", "ca.crt"),
            ("kubelet-client-certificate", "kubelet-client.crt"),
            ("kubelet-client-key", "kubelet-client.key"),
        ] {
            command.arg(format!("--{flag}={}", self.key(file)));
        }
        components.start("kube-apiserver", &command)?;
        Ok(())
    }

    /// Starts controller manager and scheduler.
    pub(crate) fn start_controllers(&self, components: &Components) -> anyhow::Result<()> {
        let mut command = self.command("kube-controller-manager");
        self.common(&mut command, "controllers.conf", self.ports.controllers);
        command.args([
            "--use-service-account-credentials=false",
            "--allocate-node-cidrs=false",
            "--node-monitor-grace-period=40s",
            "--concurrent-deployment-syncs=20",
            "--concurrent-replicaset-syncs=20",
        ]);
        for (flag, file) in [
            ("service-account-private-key-file", "sa.key"),
            ("root-ca-file", "ca.crt"),
            ("cluster-signing-cert-file", "ca.crt"),
            ("cluster-signing-key-file", "ca.key"),
        ] {
            command.arg(format!("--{flag}={}", self.key(file)));
        }
        // its default is a folder of the host, which it would make
        command.arg(format!(
            "--flex-volume-plugin-dir={}",
            self.dir.join("flex").display()
        ));
        components.start("kube-controller-manager", &command)?;

        let mut command = self.command("kube-scheduler");
        self.common(&mut command, "scheduler.conf", self.ports.scheduler);
        components.start("kube-scheduler", &command)?;
        Ok(())
    }

    fn common(&self, command: &mut Command, kubeconfig: &str, port: u16) {
        for flag in [
            "kubeconfig",
            "authentication-kubeconfig",
            "authorization-kubeconfig",
        ] {
            command.arg(format!("--{flag}={}", self.key(kubeconfig)));
        }
        command.arg(format!("--secure-port={port}"));
        command.args([
            "--bind-address=127.0.0.1",
            "--leader-elect=false",
            // the default limits make 200 pods take 9 s instead of 2
            "--kube-api-qps=1000",
            "--kube-api-burst=2000",
        ]);
    }

    /// Ends API server and etcd so that the store on disk is complete.
    pub(crate) async fn stop_store(&self, components: &Components) -> anyhow::Result<()> {
        components.stop("kube-apiserver", Signal::SIGTERM).await?;
        components
            .stop("etcd", Signal::SIGTERM)
            .await
            .context("etcd did not write its store")
    }
}
