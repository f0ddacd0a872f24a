//! The operator with a thousand deployments: memory, CPU, writes, and how fast a child's change is in the status.
//!
//! A real control plane with fake nodes, the release binary as a process of its own, one namespace. Then one real
//! node for `helm install`, and the size of the image.
//!
//! ```text
//!  bench ──▶ API server ◀──▶ operator (measured)
//!              ▲   controller manager, scheduler, fake kubelets
//! ```
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark: figures go to the terminal, and a failed step ends it"
)]

mod events;
mod install;
mod requests;

use std::process::Command;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use llmd_crds::LLMDeployment;
use llmd_e2e::Process;
use llmd_e2e::process::{cpu_seconds, llmd_bin};
use llmd_e2e_cluster::{Cluster, Namespace, poll_within};
use serde_json::json;

const DEPLOYMENTS: usize = 1000;
const NODES: usize = 100;
/// Every so many-th deployment is one of engines on GPUs, with its larger objects.
const GPU_SHARE: usize = 5;
/// Of each node; together enough for all of them.
const GPUS_PER_NODE: u32 = 2;
/// How long nothing happens: the issue says ten minutes.
const QUIET: Duration = Duration::from_secs(600);
/// Without a write for so long, the last one is done.
const SETTLED: Duration = Duration::from_secs(15);
/// Longest time from nothing to a thousand that are ready, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(900);

#[tokio::main]
async fn main() {
    install::measure().await;
    let cluster = Cluster::control(NODES).await.expect("a control plane");
    for node in 0..NODES {
        let name = format!("fake-{node}");
        cluster.set_gpus(&name, GPUS_PER_NODE).await.expect("GPUs");
    }
    let namespace = cluster.namespace().await.expect("a namespace");
    let began = Instant::now();
    let operator = start(&namespace);
    create(&namespace).await;
    ready(&namespace).await;
    println!(
        "{DEPLOYMENTS} deployments ready after {:.0} s",
        began.elapsed().as_secs_f64()
    );

    events::measure(&namespace).await;
    quiet(&cluster, &operator).await;
    figure(
        "operator: resident memory with 1,000 deployments",
        memory(&operator, "VmRSS"),
        "MiB",
        Some(100.0),
        &format!(
            "VmRSS at the end; at most {:.0} MiB since its start",
            memory(&operator, "VmHWM")
        ),
    );
    drop(operator);

    let began = Instant::now();
    let operator = start(&namespace);
    requests::first_pass(&operator, DEPLOYMENTS).await;
    figure(
        "operator: first look at 1,000 deployments after a start",
        began.elapsed().as_secs_f64(),
        "s",
        Some(30.0),
        "until as many looks as there are deployments were done",
    );
    figure(
        "operator: memory of a start with 1,000 deployments",
        memory(&operator, "VmHWM"),
        "MiB",
        Some(120.0),
        "VmHWM after the first look",
    );
}

fn start(namespace: &Namespace) -> Process {
    let mut command = Command::new(llmd_bin());
    command.env("KUBECONFIG", namespace.cluster().kubeconfig()).args([
        "operator",
        "--leader-elect=false",
        "--metrics-bind-address=127.0.0.1:0",
        "--health-probe-bind-address=127.0.0.1:0",
    ]);
    Process::spawn("operator", command)
}

fn resource() -> ApiResource {
    ApiResource::erase::<LLMDeployment>(&())
}

async fn api(namespace: &Namespace) -> Api<DynamicObject> {
    let client = namespace.client().await.expect("a client");
    Api::namespaced_with(client, namespace.name(), &resource())
}

async fn create(namespace: &Namespace) {
    let api = api(namespace).await;
    let create = |number: usize| {
        let api = api.clone();
        async move {
            let name = format!("d{number:04}");
            let spec = if number.is_multiple_of(GPU_SHARE) {
                json!({
                    "path": "optimized-baseline", "model": {"uri": "hf://Qwen/Qwen3-32B"},
                    "pools": [{"name": "decode", "replicas": 1, "parallelism": {"tensor": 1}}],
                })
            } else {
                json!({
                    "path": "simulated", "model": {"name": "bench/model"},
                    "pools": [{"name": "decode", "replicas": 1}],
                })
            };
            let object = json!({
                "apiVersion": "llmd.dev/v1alpha1", "kind": "LLMDeployment", "metadata": {"name": name}, "spec": spec,
            });
            let parameters = PatchParams::apply("bench");
            api.patch(&name, &parameters, &Patch::Apply(object))
                .await
                .expect("created");
        }
    };
    stream::iter((0..DEPLOYMENTS).map(create))
        .buffer_unordered(16)
        .collect::<Vec<()>>()
        .await;
}

async fn ready(namespace: &Namespace) {
    let api = api(namespace).await;
    poll_within("all deployments to be ready", PATIENCE, || async {
        let all = api.list(&kube::api::ListParams::default()).await.ok()?;
        let ready = all.items.iter().filter(|one| is_ready(one)).count();
        (ready == DEPLOYMENTS).then_some(())
    })
    .await
    .expect("a thousand ready deployments");
}

fn is_ready(object: &DynamicObject) -> bool {
    let conditions = object.data["status"]["conditions"].as_array();
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// CPU and writes while nothing happens.
async fn quiet(cluster: &Cluster, operator: &Process) {
    let pid = operator.pid();
    requests::settled(cluster, SETTLED, PATIENCE).await;
    let (writes, cpu) = (requests::applied(cluster).await, cpu_seconds(pid));
    tokio::time::sleep(QUIET).await;
    let written = requests::applied(cluster).await - writes;
    let cores = (cpu_seconds(pid) - cpu) / QUIET.as_secs_f64();
    let note = format!("over {} s", QUIET.as_secs());
    figure(
        "operator: CPU while nothing happens, 1,000 deployments",
        cores * 1000.0,
        "millicores",
        Some(10.0),
        &note,
    );
    figure(
        "operator: server-side applies while nothing happens, 1,000 deployments",
        written,
        "requests",
        Some(0.0),
        &note,
    );
}

/// A line of the process's memory, in MiB.
fn memory(process: &Process, of: &str) -> f64 {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", process.pid())).expect("a running process");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(of)?.strip_prefix(':'))
        .expect("the kernel counts it");
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().expect("kB");
    kib / 1024.0
}

/// One line that `cargo xtask bench` reads.
fn figure(name: &str, value: f64, unit: &str, budget: Option<f64>, note: &str) {
    println!(
        "figure: {}",
        json!({"name": name, "value": value, "unit": unit, "budget": budget, "note": note})
    );
}
