//! Runs one container as a process: start, probe, restart with back-off, stop.

use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::events::Events;
use crate::parent::EXIT_WITH_PARENT;
use crate::probe::{Probe, Prober, START_PERIOD};
use crate::translate::pod::ContainerPlan;

/// Longest line that is passed on; the rest of it is cut.
const LINE_LIMIT: usize = 16 * 1024;

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Waits for its (re)start.
    #[default]
    Waiting,
    /// Runs and has not passed its startup probe.
    Starting,
    /// Runs.
    Running,
    /// Was asked to stop.
    Stopping,
    /// Ended for good.
    Stopped,
}

/// What is known about a container.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Phase.
    pub phase: Phase,
    /// Whether its readiness probe says yes.
    pub ready: bool,
    /// Restarts since the pod was created.
    pub restarts: u32,
    /// Process id while it runs.
    pub pid: Option<u32>,
    /// Why it is not ready, in one line.
    pub message: String,
}

/// Shared by everything that runs containers.
#[derive(Clone, Debug)]
pub struct Context {
    /// Lines and notes.
    pub events: Events,
    /// Probes.
    pub prober: Prober,
    /// Woken whenever a container's state changes.
    pub changed: Arc<Notify>,
    /// The llmd binary, which guards foreign programs.
    pub executable: std::path::PathBuf,
    /// Private directory of the run.
    pub dir: std::path::PathBuf,
}

/// One container and its process.
#[derive(Debug)]
pub struct Container {
    plan: ContainerPlan,
    source: Arc<str>,
    grace: Duration,
    state: Mutex<State>,
    context: Context,
}

impl Container {
    /// A container that [`Self::run`] will start; `source` names it in logs.
    pub fn new(plan: ContainerPlan, source: Arc<str>, grace: Duration, context: Context) -> Self {
        Self {
            plan,
            source,
            grace,
            state: Mutex::default(),
            context,
        }
    }

    /// Its state now.
    pub fn state(&self) -> State {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.context.changed.notify_one();
    }

    /// Keeps the process running until `stop`; `kill` cuts the grace period short.
    pub async fn run(&self, stop: &CancellationToken, kill: &CancellationToken) {
        let mut backoff = Backoff::default();
        while !stop.is_cancelled() {
            let started = Instant::now();
            let end = match self.spawn() {
                Ok(child) => self.attend(child, stop, kill).await,
                Err(error) => Some(format!(
                    "cannot start {}: {error}",
                    self.plan.program.path.display()
                )),
            };
            let Some(reason) = end else { break };
            let delay = backoff.after_exit(started, Instant::now());
            let when = if delay.is_zero() {
                String::new()
            } else {
                format!(" in {} s", delay.as_secs())
            };
            self.context.events.ended(
                &self.source,
                format!("{} {reason}; restarting{when}", self.source),
            );
            self.update(|state| {
                state.phase = Phase::Waiting;
                state.ready = false;
                state.pid = None;
                state.restarts += 1;
                state.message = reason;
            });
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = stop.cancelled() => {}
            }
        }
        self.update(|state| {
            state.phase = Phase::Stopped;
            state.ready = false;
            state.pid = None;
        });
    }

    fn spawn(&self) -> std::io::Result<Child> {
        let ContainerPlan {
            program, args, env, ..
        } = &self.plan;
        let mut command = if program.own {
            let mut command = Command::new(&program.path);
            command.arg0(&program.argv0);
            command
        } else {
            let mut command = Command::new(&self.context.executable);
            command.arg0("llmd").args(["guard", "--"]).arg(&program.path);
            command
        };
        command
            .args(args)
            .env_clear()
            .envs(env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        if program.own {
            command.env(EXIT_WITH_PARENT, &self.context.dir);
        }
        let mut child = command.spawn()?;
        for pipe in [child.stdout.take().map(boxed), child.stderr.take().map(boxed)]
            .into_iter()
            .flatten()
        {
            tokio::spawn(forward_lines(
                pipe,
                Arc::clone(&self.source),
                self.context.events.clone(),
            ));
        }
        let pid = child.id();
        self.update(|state| {
            state.phase = Phase::Starting;
            state.pid = pid;
        });
        Ok(child)
    }

    /// Waits for the end of the process; `None` when it was asked to stop, otherwise why it ended.
    async fn attend(
        &self,
        mut child: Child,
        stop: &CancellationToken,
        kill: &CancellationToken,
    ) -> Option<String> {
        let group = child.id();
        let _parent_pipe = child.stdin.take();
        let reason = tokio::select! {
            status = child.wait() => Some(describe(status)),
            failure = self.probe() => {
                self.end(&mut child, kill).await;
                Some(failure)
            }
            () = stop.cancelled() => {
                self.update(|state| {
                    state.phase = Phase::Stopping;
                    state.ready = false;
                });
                self.end(&mut child, kill).await;
                None
            }
        };
        signal_group(group, Signal::SIGKILL); // whatever the process left behind
        reason
    }

    /// SIGTERM, the grace period, SIGKILL.
    async fn end(&self, child: &mut Child, kill: &CancellationToken) {
        let group = child.id();
        signal_group(group, Signal::SIGTERM);
        tokio::select! {
            _ = child.wait() => return,
            () = tokio::time::sleep(self.grace) => {}
            () = kill.cancelled() => {}
        }
        signal_group(group, Signal::SIGKILL);
        let _ = child.wait().await;
    }

    /// Runs the probes; returns why the container must be restarted.
    async fn probe(&self) -> String {
        let probes = &self.plan.probes;
        if let Some(startup) = &probes.startup
            && let Err(failure) = self.wait_for_start(startup).await
        {
            return failure;
        }
        self.update(|state| {
            state.phase = Phase::Running;
            state.message.clear();
        });
        let readiness = self.follow_readiness(probes.readiness.as_ref());
        let liveness = self.follow_liveness(probes.liveness.as_ref(), probes.startup.is_some());
        tokio::select! {
            never = readiness => match never {},
            failure = liveness => failure,
        }
    }

    async fn wait_for_start(&self, probe: &Probe) -> Result<(), String> {
        let started = Instant::now();
        loop {
            let Err(problem) = self.context.prober.ask(probe).await else {
                return Ok(());
            };
            if started.elapsed() >= probe.patience() {
                return Err(format!(
                    "did not start within {} s: {problem}",
                    probe.patience().as_secs()
                ));
            }
            self.update(|state| state.message.clone_from(&problem));
            tokio::time::sleep(START_PERIOD).await;
        }
    }

    async fn follow_readiness(&self, probe: Option<&Probe>) -> std::convert::Infallible {
        let Some(probe) = probe else {
            self.set_ready(true, String::new());
            return std::future::pending().await;
        };
        let mut failures = 0;
        let mut was_ready = false;
        loop {
            match self.context.prober.ask(probe).await {
                Ok(()) => {
                    failures = 0;
                    was_ready = true;
                    self.set_ready(true, String::new());
                }
                Err(problem) => {
                    failures += 1;
                    if failures >= probe.failure_threshold || !was_ready {
                        self.set_ready(false, problem);
                    }
                }
            }
            tokio::time::sleep(if was_ready { probe.period } else { START_PERIOD }).await;
        }
    }

    async fn follow_liveness(&self, probe: Option<&Probe>, started: bool) -> String {
        let Some(probe) = probe else {
            return std::future::pending().await;
        };
        if !started {
            tokio::time::sleep(probe.initial_delay).await;
        }
        let mut failures = 0;
        loop {
            tokio::time::sleep(probe.period).await;
            match self.context.prober.ask(probe).await {
                Ok(()) => failures = 0,
                Err(problem) => {
                    failures += 1;
                    if failures >= probe.failure_threshold {
                        return format!("failed its liveness probe {failures} times: {problem}");
                    }
                }
            }
        }
    }

    fn set_ready(&self, ready: bool, message: String) {
        let before = self.state();
        if before.ready != ready || before.message != message {
            self.update(|state| {
                state.ready = ready;
                state.message = message;
            });
        }
    }
}

fn boxed(pipe: impl AsyncRead + Send + Unpin + 'static) -> Box<dyn AsyncRead + Send + Unpin> {
    Box::new(pipe)
}

fn signal_group(group: Option<u32>, signal: Signal) {
    if let Some(group) = group.and_then(|pid| i32::try_from(pid).ok()) {
        let _ = killpg(Pid::from_raw(group), signal); // ESRCH: the group is gone, which is what is wanted
    }
}

fn describe(status: std::io::Result<ExitStatus>) -> String {
    use std::os::unix::process::ExitStatusExt;
    match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("ended with code {code}"),
            (None, Some(signal)) => match Signal::try_from(signal) {
                Ok(name) => format!("was killed by {name}"),
                Err(_) => format!("was killed by signal {signal}"),
            },
            (None, None) => "ended".to_owned(),
        },
        Err(error) => format!("was lost: {error}"),
    }
}

/// Passes a pipe on line by line; a line longer than [`LINE_LIMIT`] is cut, never collected.
async fn forward_lines(mut pipe: Box<dyn AsyncRead + Send + Unpin>, source: Arc<str>, events: Events) {
    let mut buffer = vec![0u8; 8192];
    let mut line: Vec<u8> = Vec::new();
    while let Ok(read @ 1..) = pipe.read(&mut buffer).await {
        for piece in buffer[..read].split_inclusive(|byte| *byte == b'\n') {
            let room = LINE_LIMIT - line.len().min(LINE_LIMIT);
            let text = piece.strip_suffix(b"\n").unwrap_or(piece);
            line.extend_from_slice(&text[..text.len().min(room)]);
            if text.len() < piece.len() {
                flush(&mut line, &source, &events);
            }
        }
    }
    flush(&mut line, &source, &events);
}

fn flush(line: &mut Vec<u8>, source: &Arc<str>, events: &Events) {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end();
    if !text.is_empty() {
        events.log(source, text.to_owned());
    }
    line.clear();
}
