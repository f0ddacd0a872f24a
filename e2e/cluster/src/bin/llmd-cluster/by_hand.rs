//! `up`, `down`, `shell`: one cluster per user that stays between commands.
//!
//! A cluster ends with the process that started it, so `up` starts a process that holds it.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail};
use clap::ValueEnum;
use llmd_e2e_cluster::{Cluster, DEADLINE, Images, artifacts, image, poll_until, poll_within};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};

#[derive(clap::Args)]
pub(crate) struct Up {
    /// What kind of nodes; real ones where this machine can run them.
    #[arg(long)]
    nodes: Option<Nodes>,
    /// How many nodes.
    #[arg(long, default_value_t = 2)]
    count: usize,
    /// Serve foreign kinds too: Gateway API, InferencePool, LeaderWorkerSet, KEDA.
    #[arg(long)]
    foreign_crds: bool,
    /// The llmd binary whose images real nodes get.
    #[arg(long)]
    binary: PathBuf,
    /// The chart to install on real nodes.
    #[arg(long)]
    chart: Option<PathBuf>,
    /// Where the holder says what it holds.
    #[arg(long, hide = true)]
    state: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Nodes {
    /// Pods run. Needs root.
    Real,
    /// Pods are said to run.
    Fake,
}

#[derive(clap::Args)]
pub(crate) struct Shell {
    /// Command to run instead of `$SHELL`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// What the holder tells the other verbs.
#[derive(Serialize, Deserialize)]
struct Held {
    pid: i32,
    kubeconfig: PathBuf,
    /// Where `kubectl` and `helm` are.
    tools: PathBuf,
}

pub(crate) async fn up(up: &Up) -> anyhow::Result<()> {
    if let Some(held) = held()? {
        bail!(
            "a cluster is up already; its kubeconfig: {}; end it with `cargo xtask cluster down`",
            held.kubeconfig.display()
        );
    }
    let log_file = artifacts::cache()?.join("up.log");
    let log = File::create(&log_file)?;
    let mut holder = Command::new(std::env::current_exe()?);
    holder.arg("hold").arg("--binary").arg(&up.binary);
    holder.args(["--count", &up.count.to_string()]);
    if let Some(nodes) = up.nodes.as_ref().and_then(ValueEnum::to_possible_value) {
        holder.args(["--nodes", nodes.get_name()]);
    }
    if let Some(chart) = &up.chart {
        holder.arg("--chart").arg(chart);
    }
    if up.foreign_crds {
        holder.arg("--foreign-crds");
    }
    let mut child = holder
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()
        .context("cannot start the process that holds the cluster")?;
    let held = poll_within("the cluster", 3 * DEADLINE, || {
        let ended = child.try_wait().ok().flatten();
        async move {
            match ended {
                Some(status) => Some(Err(status)),
                None => held().ok().flatten().map(Ok),
            }
        }
    })
    .await?;
    let Ok(held) = held else {
        bail!(
            "the cluster did not start:\n{}",
            std::fs::read_to_string(log_file)?
        );
    };
    print!("{}", std::fs::read_to_string(log_file)?);
    println!("export KUBECONFIG={}", held.kubeconfig.display());
    println!("kubectl and helm: `cargo xtask cluster shell`; the end: `cargo xtask cluster down`");
    Ok(())
}

/// Starts the cluster, says where it is, and waits for the signal of `down`.
pub(crate) async fn hold(up: &Up) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let missing = Cluster::missing_for_nodes();
    let nodes = up.nodes.unwrap_or_else(|| {
        if missing.is_empty() {
            return Nodes::Real;
        }
        println!("fake nodes, because this machine lacks {}", missing.join("; "));
        Nodes::Fake
    });
    let builder = match nodes {
        // the chart brings our definitions
        Nodes::Real if up.chart.is_some() => Cluster::node(up.count).without_our_crds(),
        Nodes::Real => Cluster::node(up.count),
        Nodes::Fake => Cluster::control(up.count),
    };
    let start = Instant::now();
    let cluster = if up.foreign_crds {
        builder.with_foreign_crds().await?
    } else {
        builder.await?
    };
    println!("a cluster, started in {:.1} s", start.elapsed().as_secs_f64());
    if nodes == Nodes::Real {
        let images = cluster.install_llmd_as(&up.binary, "dev").await?;
        println!("image on every node: {}", images.reference("llmd"));
        let next = cluster.install_llmd_as(&up.binary, "next").await?;
        println!("the same, to change to: {}", next.reference("llmd"));
        match cluster.install_envoy(image::ENVOY).await {
            Ok(()) => println!("image on every node: {}", image::ENVOY),
            Err(error) => println!("no Envoy on the nodes: {error:#}"),
        }
        if let Some(chart) = &up.chart {
            install(&cluster, chart, &images).await?;
        }
    }
    let tools = tools(&cluster)?;
    let held = Held {
        pid: std::process::id().cast_signed(),
        kubeconfig: cluster.kubeconfig().to_path_buf(),
        tools,
    };
    let file = match &up.state {
        Some(file) => file.clone(),
        None => state()?,
    };
    let partial = file.with_extension("partial");
    std::fs::write(&partial, serde_json::to_string(&held)?)?;
    std::fs::rename(&partial, &file)?;
    terminate.recv().await;
    std::fs::remove_file(&file)?;
    Ok(())
}

/// `helm install` of our chart with the images on the nodes.
async fn install(cluster: &Cluster, chart: &Path, images: &Images) -> anyhow::Result<()> {
    let chart = chart.display().to_string();
    let repository = format!("image.repository={}", images.repository);
    let tag = format!("image.tag={}", images.tag);
    let arguments = [
        "install",
        "llmd",
        &chart,
        "--namespace",
        "llmd-system",
        "--create-namespace",
    ];
    cluster
        .helm(arguments.into_iter().chain(["--set", &repository, "--set", &tag]))
        .await?;
    println!("installed {chart} in the namespace llmd-system");
    Ok(())
}

pub(crate) async fn down() -> anyhow::Result<()> {
    let held = held()?.context("no cluster is up")?;
    kill(Pid::from_raw(held.pid), Signal::SIGTERM)?;
    let process = PathBuf::from(format!("/proc/{}", held.pid));
    poll_until("the end of the cluster", || async {
        (!process.exists()).then_some(())
    })
    .await
}

pub(crate) fn shell(shell: &Shell) -> anyhow::Result<()> {
    let held = held()?.context("no cluster is up; start one with `cargo xtask cluster up`")?;
    let mut command = match shell.command.split_first() {
        Some((program, arguments)) => {
            let mut command = Command::new(program);
            command.args(arguments);
            command
        }
        None => Command::new(std::env::var_os("SHELL").unwrap_or_else(|| "sh".into())),
    };
    let mut path = vec![held.tools];
    path.extend(std::env::split_paths(
        &std::env::var_os("PATH").unwrap_or_default(),
    ));
    command
        .env("KUBECONFIG", held.kubeconfig)
        .env("PATH", std::env::join_paths(path)?);
    Err(command.exec()).context("cannot start the shell")
}

/// `kubectl` as a program of its own, and `helm`, beside the kubeconfig.
fn tools(cluster: &Cluster) -> anyhow::Result<PathBuf> {
    let folder = cluster.kubeconfig().with_file_name("bin");
    std::fs::create_dir(&folder)?;
    let kubectl = folder.join("kubectl");
    let kube = artifacts::program("kube")?;
    std::fs::write(
        &kubectl,
        format!("#!/bin/sh\nexec '{}' kubectl \"$@\"\n", kube.display()),
    )?;
    std::fs::set_permissions(&kubectl, PermissionsExt::from_mode(0o755))?;
    std::os::unix::fs::symlink(artifacts::program("helm")?, folder.join("helm"))?;
    Ok(folder)
}

fn state() -> anyhow::Result<PathBuf> {
    Ok(artifacts::cache()?.join("up.json"))
}

/// The cluster of the last `up`, if its holder lives.
fn held() -> anyhow::Result<Option<Held>> {
    let file = state()?;
    if !file.exists() {
        return Ok(None);
    }
    let held: Held = serde_json::from_slice(&std::fs::read(&file)?)?;
    let name = std::fs::read_to_string(Path::new("/proc").join(held.pid.to_string()).join("comm"));
    if name.is_ok_and(|name| name.trim() == "llmd-cluster") {
        return Ok(Some(held));
    }
    Ok(None)
}
