//! A picker under test with its engines: started for a set-up, or one that runs already.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tonic::transport::Channel;

use crate::case::Member;
use crate::engine::Engine;
use crate::samples::{self, Sample};
use crate::setup::Setup;
use crate::stream;

/// Longest wait for a picker to start, or to see a change.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(20);
/// Lines kept of what a picker says.
const LOG_LINES: usize = 2000;
/// Starts again when another process took one of the ports in between.
const ATTEMPTS: usize = 3;
/// Gauges that count endpoints with fresh metrics, newest name first.
const READY: [&str; 2] = ["llm_d_epp_ready_endpoints", "inference_pool_ready_pods"];

/// How pickers are started.
#[derive(Clone, Debug)]
pub struct Binary {
    /// The program.
    pub program: PathBuf,
    /// Arguments before all others, such as a verb.
    pub arguments: Vec<String>,
    /// Configuration for cases that need no particular one.
    pub config: Option<Value>,
}

/// A picker that runs already.
#[derive(Clone, Debug)]
pub struct Running {
    /// Its ext-proc port.
    pub ext_proc: SocketAddr,
    /// Whether that port has TLS.
    pub with_tls: bool,
    /// Its metrics port.
    pub metrics: Option<SocketAddr>,
    /// Its endpoints by name.
    pub endpoints: Vec<(String, SocketAddr)>,
}

/// A picker ready for cases.
#[derive(Debug)]
pub struct Rig {
    /// The endpoints by name.
    pub members: Vec<(String, SocketAddr)>,
    /// Its metrics port.
    pub metrics: Option<SocketAddr>,
    channel: Channel,
    own: Option<Own>,
}

/// What is there for a picker that we started.
#[derive(Debug)]
struct Own {
    child: Child,
    engines: Vec<(String, Engine)>,
    log: Log,
    directory: tempfile::TempDir,
}

type Log = Arc<Mutex<Vec<String>>>;

/// A picker that did not come up.
#[derive(Debug)]
pub struct Refused {
    /// How it ended; `None`: it was still running when the patience was over.
    pub status: Option<ExitStatus>,
    /// What it said.
    pub log: Vec<String>,
    /// One of its ports was taken by somebody else.
    lost_a_port: bool,
}

impl Rig {
    /// Takes a picker that runs already.
    pub async fn running(running: &Running) -> anyhow::Result<Self> {
        Ok(Self {
            members: running.endpoints.clone(),
            metrics: running.metrics,
            channel: stream::connect(running.ext_proc, running.with_tls).await?,
            own: None,
        })
    }

    /// Starts engines and a picker and waits until it serves.
    pub async fn start(binary: &Binary, setup: &Setup) -> anyhow::Result<Result<Self, Refused>> {
        for attempt in 1.. {
            match Self::attempt(binary, setup).await? {
                Err(refused) if attempt < ATTEMPTS && refused.lost_a_port => {}
                other => return Ok(other),
            }
        }
        bail!("no attempt was made")
    }

    async fn attempt(binary: &Binary, setup: &Setup) -> anyhow::Result<Result<Self, Refused>> {
        let directory = tempfile::tempdir()?;
        let (engines, port) = engines(setup).await?;
        let endpoints = directory.path().join("endpoints.yaml");
        let config = directory.path().join("config.yaml");
        write_endpoints(&directory, &engines.iter().collect::<Vec<_>>())?;
        let file = setup.config_file(binary.config.as_ref(), &endpoints, port);
        // JSON: readers of YAML 1.1 take a plain `y` for a truth value.
        std::fs::write(&config, file.to_string())?;
        let ports = free_ports()?;
        let [ext_proc, health, metrics] = ports.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let mut child = Command::new(&binary.program)
            .args(&binary.arguments)
            .args([
                "--secure-serving=false",
                "--refresh-prometheus-metrics-interval=100ms",
            ])
            .arg(format!("--config-file={}", config.display()))
            .arg(format!("--grpc-port={}", ext_proc.port()))
            .arg(format!("--grpc-health-port={}", health.port()))
            .arg(format!("--metrics-port={}", metrics.port()))
            .args([
                "--allow-experimental-plugins",
                "--tracing=false",
                "--pool-name=conformance",
            ])
            .args(&setup.flags)
            .env_remove("POD_NAME")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", binary.program.display()))?;
        let log = Log::default();
        let readers = [
            tokio::spawn(keep(child.stdout.take().context("piped")?, Arc::clone(&log))),
            tokio::spawn(keep(child.stderr.take().context("piped")?, Arc::clone(&log))),
        ];
        let ready = engines
            .iter()
            .filter(|(_, engine)| !engine.member().unscrapable)
            .count();
        let end = Instant::now() + PATIENCE;
        let channel = loop {
            if let Some(status) = child.try_wait()? {
                for reader in readers {
                    reader.await?;
                }
                let log = lines(&log);
                return Ok(Err(Refused {
                    status: Some(status),
                    lost_a_port: log.iter().any(|line| line.contains("in use")) || is_taken(&ports),
                    log,
                }));
            }
            if is_ready(metrics, ready).await
                && let Ok(channel) = stream::connect(ext_proc, setup.with_tls()).await
            {
                break channel;
            }
            if Instant::now() > end {
                return Ok(Err(Refused {
                    status: None,
                    log: lines(&log),
                    lost_a_port: false,
                }));
            }
            tokio::time::sleep(PAUSE).await;
        };
        Ok(Ok(Self {
            members: engines
                .iter()
                .map(|(name, engine)| (name.clone(), engine.address))
                .collect(),
            metrics: Some(metrics),
            channel,
            own: Some(Own {
                child,
                engines,
                log,
                directory,
            }),
        }))
    }

    /// A connection to the picker.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// What the picker said so far; nothing of one that ran already.
    pub fn log(&self) -> Vec<String> {
        self.own.as_ref().map(|own| lines(&own.log)).unwrap_or_default()
    }

    /// How the picker ended, if it did.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        match &mut self.own {
            Some(own) => Ok(own.child.try_wait()?),
            None => Ok(None),
        }
    }

    /// The metrics page; `None` where it is not known.
    pub async fn samples(&self) -> anyhow::Result<Option<Vec<Sample>>> {
        match self.metrics {
            Some(address) => samples::scrape(address).await.map(Some),
            None => Ok(None),
        }
    }

    /// Changes what engines show and waits until each was scraped twice: the second scrape began after the change.
    pub async fn set(&self, changes: &BTreeMap<String, Value>) -> anyhow::Result<()> {
        let own = self
            .own
            .as_ref()
            .context("engines of a running picker are not ours")?;
        let mut waits = Vec::new();
        for (name, change) in changes {
            let (_, engine) = own
                .engines
                .iter()
                .find(|(other, _)| other == name)
                .with_context(|| format!("no member is called {name}"))?;
            engine.set(serde_json::from_value::<Member>(change.clone())?);
            waits.push((engine, engine.scrapes()));
        }
        until("two scrapes after a change of metrics", || {
            let seen = waits
                .iter()
                .all(|(engine, before)| engine.scrapes() >= before + 3);
            async move { Ok(seen) }
        })
        .await
    }

    /// Lists only these members and waits until the picker counts them.
    pub async fn members_only(&self, names: &[String]) -> anyhow::Result<()> {
        let own = self
            .own
            .as_ref()
            .context("endpoints of a running picker are not ours")?;
        let listed: Vec<&(String, Engine)> = own
            .engines
            .iter()
            .filter(|(name, _)| names.contains(name))
            .collect();
        ensure!(
            listed.len() == names.len(),
            "a name is not of this pool: {names:?}"
        );
        write_endpoints(&own.directory, &listed)?;
        let metrics = self.metrics.context("metrics of our own picker")?;
        let count = listed.len();
        until("the new endpoints", || async move {
            Ok(is_ready(metrics, count).await)
        })
        .await
    }
}

async fn until<F>(what: &str, mut probe: impl FnMut() -> F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<bool>>,
{
    let end = Instant::now() + PATIENCE;
    while !probe().await? {
        ensure!(Instant::now() < end, "{what} did not come within {PATIENCE:?}");
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

async fn is_ready(metrics: SocketAddr, count: usize) -> bool {
    let Ok(page) = samples::scrape(metrics).await else {
        return false;
    };
    let ready = READY.iter().find_map(|name| samples::sum(&page, name, &[]));
    ready.unwrap_or_default() as usize == count
}

async fn keep(stream: impl AsyncRead + Unpin, log: Log) {
    let mut read = BufReader::new(stream).lines();
    while let Ok(Some(line)) = read.next_line().await {
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        if log.len() < LOG_LINES {
            log.push(line);
        }
    }
}

fn lines(log: &Log) -> Vec<String> {
    log.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Ports that were free a moment ago on every address, where pickers listen and engines of other set-ups are;
/// upstream's picker cannot choose its own and tell.
fn free_ports() -> anyhow::Result<[u16; 3]> {
    let listeners = [(); 3].map(|()| listen(0));
    let [first, second, third] = listeners;
    let port = |listener: TcpListener| anyhow::Ok(listener.local_addr()?.port());
    Ok([port(first?)?, port(second?)?, port(third?)?])
}

/// Listens on every address, of IPv4 alone where there is nothing else.
fn listen(port: u16) -> std::io::Result<TcpListener> {
    TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
        .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))
}

fn is_taken(ports: &[u16]) -> bool {
    ports.iter().any(|port| listen(*port).is_err())
}

/// The engines of a set-up, all on one port: sources that are told a port find each of them.
async fn engines(setup: &Setup) -> anyhow::Result<(Vec<(String, Engine)>, u16)> {
    let mut outcome = Err(anyhow::anyhow!("no attempt was made"));
    for _ in 0..ATTEMPTS {
        outcome = engines_on_one_port(setup).await;
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

async fn engines_on_one_port(setup: &Setup) -> anyhow::Result<(Vec<(String, Engine)>, u16)> {
    let (mut engines, mut port) = (Vec::new(), 0);
    for (index, (name, member)) in setup.members().into_iter().enumerate() {
        let engine = Engine::start(index, port, member).await?;
        port = engine.address.port();
        engines.push((name, engine));
    }
    Ok((engines, port))
}

/// Replaces the file in one step.
fn write_endpoints(directory: &tempfile::TempDir, engines: &[&(String, Engine)]) -> anyhow::Result<()> {
    let endpoints: Vec<Value> = engines
        .iter()
        .map(|(name, engine)| {
            json!({
                "name": name,
                "namespace": "default",
                "address": engine.address.ip().to_string(),
                "port": engine.address.port().to_string(),
                "labels": engine.member().labels,
            })
        })
        .collect();
    let mut file = tempfile::NamedTempFile::new_in(directory.path())?;
    file.write_all(json!({ "endpoints": endpoints }).to_string().as_bytes())?;
    file.persist(directory.path().join("endpoints.yaml"))?;
    Ok(())
}
