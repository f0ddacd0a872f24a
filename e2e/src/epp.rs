//! `llmd epp` as a process, or another picker with upstream's flags, fed by a file of endpoints.

use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::http;
use crate::poll::{DEADLINE, free_port, poll_until_async};
use crate::process::{Process, llmd_bin};

/// Gauge of endpoints with fresh metrics.
const READY: &str = "llm_d_epp_ready_endpoints";

/// How the picker is started.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Serve ext-proc over TLS with a self-signed certificate (upstream's default).
    pub secure: bool,
    /// Further flags.
    pub flags: Vec<String>,
    /// Start the binary by the name `llmd-epp` instead of `llmd epp`.
    pub by_name: bool,
    /// Start this picker instead, which takes upstream's flags and has no debug pages.
    pub program: Option<PathBuf>,
}

/// A running picker with a file of endpoints of its own.
#[derive(Debug)]
pub struct Epp {
    /// The process; replaced by [`Epp::restart`].
    pub process: Process,
    /// Where Envoy connects.
    pub ext_proc: SocketAddr,
    /// Metrics and debug pages.
    pub admin: SocketAddr,
    command: Vec<String>,
    program: PathBuf,
    is_ours: bool,
    endpoints: usize,
    directory: tempfile::TempDir,
}

impl Epp {
    /// Starts with upstream's default plugins and waits until it serves these endpoints.
    ///
    /// # Panics
    /// When it does not serve within the deadline.
    pub async fn start(endpoints: &[SocketAddr], options: &Options) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let config = directory.path().join("config.yaml");
        let file = directory.path().join("endpoints.yaml");
        std::fs::write(&config, configuration(&file).to_string()).expect("a writable directory");
        write_endpoints(&directory, endpoints);
        let [ext_proc, health, admin] = [(); 3].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port())));
        let mut command = vec![
            format!("--secure-serving={}", options.secure),
            format!("--config-file={}", config.display()),
            format!("--grpc-port={}", ext_proc.port()),
            format!("--grpc-health-port={}", health.port()),
            format!("--metrics-port={}", admin.port()),
        ];
        command.extend(options.flags.iter().cloned());
        let mut program = options.program.clone().unwrap_or_else(llmd_bin);
        let is_ours = options.program.is_none();
        if !is_ours {
            // It is no `llmd` with verbs.
        } else if options.by_name {
            let link = directory.path().join("llmd-epp");
            symlink(&program, &link).expect("a symbolic link");
            program = link;
        } else {
            command.insert(0, "epp".to_owned());
        }
        let epp = Self {
            process: spawn(&program, &command),
            ext_proc,
            admin,
            command,
            program,
            is_ours,
            endpoints: endpoints.len(),
            directory,
        };
        epp.wait_until_serving().await;
        epp
    }

    /// Ends the process as a crash would and starts it again on the same ports.
    pub async fn restart(&mut self) {
        self.relaunch();
        self.wait_until_serving().await;
    }

    /// [`Epp::restart`] without the wait; tells when the new process was started.
    pub fn relaunch(&mut self) -> Instant {
        // Not left to its guard: it would be there still when the new one wants its ports.
        self.process.end();
        let began = Instant::now();
        self.process = spawn(&self.program, &self.command);
        began
    }

    /// Replaces the endpoints and waits until the picker has them.
    pub async fn set_endpoints(&mut self, endpoints: &[SocketAddr]) {
        write_endpoints(&self.directory, endpoints);
        self.endpoints = endpoints.len();
        self.wait_until_serving().await;
    }

    /// Sum of requests in flight as `/debug/endpoints` shows them.
    pub async fn in_flight(&self) -> u64 {
        let endpoints = self.debug_endpoints().await.unwrap_or_default();
        endpoints
            .iter()
            .filter_map(|endpoint| endpoint["inFlightRequests"].as_u64())
            .sum()
    }

    /// Waits until so many requests are in flight.
    pub async fn wait_for_in_flight(&self, count: u64) {
        let what = format!("{count} requests in flight");
        poll_until_async(&what, DEADLINE, || async {
            (self.in_flight().await == count).then_some(())
        })
        .await;
    }

    /// The lines of `/debug/endpoints`; `None` while they cannot be read.
    pub async fn debug_endpoints(&self) -> Option<Vec<Value>> {
        let answer = http::get(self.admin, "/debug/endpoints").await.ok()?;
        let page: Value = serde_json::from_slice(&answer.body).ok()?;
        Some(page["endpoints"].as_array()?.clone())
    }

    /// The build that the picker names in its metrics (`llm_d_epp_info`, label `commit`).
    pub async fn commit(&self) -> Option<String> {
        let page = http::get(self.admin, "/metrics").await.ok()?.text();
        let line = page.lines().find(|line| line.starts_with("llm_d_epp_info{"))?;
        let commit = line.split_once("commit=\"")?.1.split('"').next()?;
        (!commit.is_empty()).then(|| commit.to_owned())
    }

    /// Endpoints whose metrics are fresh, as the gauge tells it that both pickers have.
    async fn ready_endpoints(&self) -> Option<usize> {
        let page = http::get(self.admin, "/metrics").await.ok()?.text();
        let line = page.lines().find(|line| line.starts_with(READY))?;
        // Gauges are small whole numbers here.
        line.rsplit(' ').next()?.parse().ok()
    }

    async fn wait_until_serving(&self) {
        if !self.is_ours {
            poll_until_async("a serving picker", DEADLINE, || async {
                TcpStream::connect(self.ext_proc).await.ok()?;
                (self.ready_endpoints().await? == self.endpoints).then_some(())
            })
            .await;
            return;
        }
        poll_until_async("a serving picker", DEADLINE, || async {
            let endpoints = self.debug_endpoints().await?;
            let scraped = endpoints
                .iter()
                .all(|endpoint| !endpoint["metricsAgeMs"].is_null());
            TcpStream::connect(self.ext_proc).await.ok()?;
            (endpoints.len() == self.endpoints && scraped).then_some(())
        })
        .await;
    }
}

fn spawn(program: &PathBuf, arguments: &[String]) -> Process {
    let mut command = Command::new(program);
    command.args(arguments);
    Process::spawn("epp", command)
}

/// Upstream's default plugins and weights, with endpoints from a file.
fn configuration(endpoints: &std::path::Path) -> Value {
    json!({
        "apiVersion": "llm-d.ai/v1alpha1",
        "kind": "EndpointPickerConfig",
        "plugins": [
            {"type": "queue-scorer"},
            {"type": "kv-cache-utilization-scorer"},
            {"type": "prefix-cache-scorer"},
            {"type": "file-discovery", "parameters": {"path": endpoints, "watchFile": true}}
        ],
        "schedulingProfiles": [{
            "name": "default",
            "plugins": [
                {"pluginRef": "queue-scorer", "weight": 2},
                {"pluginRef": "kv-cache-utilization-scorer", "weight": 2},
                {"pluginRef": "prefix-cache-scorer", "weight": 3}
            ]
        }],
        "dataLayer": {"discovery": {"pluginRef": "file-discovery"}}
    })
}

/// Replaces the file in one step, as the watcher expects it.
fn write_endpoints(directory: &tempfile::TempDir, endpoints: &[SocketAddr]) {
    let endpoints: Vec<Value> = endpoints
        .iter()
        .enumerate()
        .map(|(index, address)| {
            json!({
                "name": format!("engine-{index}"),
                "address": address.ip().to_string(),
                "port": address.port().to_string()
            })
        })
        .collect();
    let (path, new) = (
        directory.path().join("endpoints.yaml"),
        directory.path().join("new"),
    );
    std::fs::write(&new, json!({ "endpoints": endpoints }).to_string()).expect("a writable directory");
    std::fs::rename(new, path).expect("a writable directory");
}
