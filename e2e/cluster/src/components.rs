//! The processes of one cluster: start, stop, logs.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::janitor::Janitor;
use crate::poll::poll_until;

/// Error lines printed of each process when something fails.
const SHOWN_LINES: usize = 50;

/// Running processes by name. Their output goes to `DIR/logs/NAME.log`.
#[derive(Debug)]
pub(crate) struct Components {
    dir: PathBuf,
    running: Mutex<BTreeMap<String, Child>>,
    /// `None` only while dropping.
    janitor: Option<Janitor>,
}

impl Components {
    pub(crate) fn new(dir: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir.join("logs"))?;
        Ok(Self {
            dir: dir.to_path_buf(),
            running: Mutex::default(),
            janitor: Some(Janitor::new(dir)?),
        })
    }

    /// Starts a process under a name. Returns its id.
    pub(crate) fn start(&self, name: &str, command: &Command) -> anyhow::Result<u32> {
        self.spawn(&mut self.lock(), name, command)
    }

    /// Starts a process unless one of that name runs.
    pub(crate) fn start_once(&self, name: &str, command: &Command) -> anyhow::Result<()> {
        let mut running = self.lock();
        if !running.contains_key(name) {
            self.spawn(&mut running, name, command)?;
        }
        Ok(())
    }

    fn spawn(
        &self,
        running: &mut BTreeMap<String, Child>,
        name: &str,
        command: &Command,
    ) -> anyhow::Result<u32> {
        let janitor = self.janitor.as_ref().context("the cluster is ending")?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_file(name))?;
        let child = janitor
            .recorded(command)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let pid = child.id();
        running.insert(name.to_owned(), child);
        Ok(pid)
    }

    /// Has a cgroup removed with all below it, after the processes.
    pub(crate) fn removes_cgroup(&self, folder: &Path) -> anyhow::Result<()> {
        match &self.janitor {
            Some(janitor) => janitor.removes_cgroup(folder),
            None => Ok(()),
        }
    }

    /// Fails when a process has ended by itself.
    pub(crate) fn check(&self, name: &str) -> anyhow::Result<()> {
        match self
            .lock()
            .get_mut(name)
            .map(Child::try_wait)
            .transpose()?
            .flatten()
        {
            None => Ok(()),
            Some(status) => bail!("{name} ended by itself: {status}"),
        }
    }

    /// Sends a signal and waits for the end of the process.
    pub(crate) async fn stop(&self, name: &str, signal: Signal) -> anyhow::Result<()> {
        let mut child = self
            .lock()
            .remove(name)
            .with_context(|| format!("{name} is not running"))?;
        let pid = child.id();
        // It may have ended already; then there is nothing to signal.
        let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
        let ended = poll_until(&format!("the end of {name}"), || {
            let status = child.try_wait().ok().flatten();
            async move { status }
        })
        .await;
        if ended.is_err() {
            child.kill()?;
            child.wait()?;
        }
        if let Some(janitor) = &self.janitor {
            janitor.forget(pid);
        }
        ended.map(|_| ())
    }

    /// Where the output of a process goes.
    pub(crate) fn log_file(&self, name: &str) -> PathBuf {
        self.dir.join("logs").join(format!("{name}.log"))
    }

    /// Prints the last error lines of each process to standard error.
    pub(crate) fn print_logs(&self) {
        let Ok(logs) = std::fs::read_dir(self.dir.join("logs")) else {
            return;
        };
        let mut logs: Vec<PathBuf> = logs.filter_map(|entry| Some(entry.ok()?.path())).collect();
        logs.sort();
        for log in logs {
            let text = std::fs::read(&log).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let errors: Vec<&str> = text.lines().filter(|line| is_error(line)).collect();
            if errors.is_empty() {
                continue;
            }
            eprintln!("--- errors of {}:", log.display());
            for line in &errors[errors.len().saturating_sub(SHOWN_LINES)..] {
                eprintln!("{line}");
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Child>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Components {
    fn drop(&mut self) {
        // The janitor kills first: children keep their number, as zombies, until they are waited for.
        self.janitor = None;
        for child in self.lock().values_mut() {
            let _ = child.wait();
        }
    }
}

/// What a kubelet on tmpfs and with few capabilities repeats, without harm.
const HARMLESS: [&str; 5] = [
    "HasDedicatedImageFs",
    "info of the filesystem with mountpoint",
    "RuntimeConfig from runtime service failed",
    "oom score",
    "rlimit on max file handles",
];

/// Error lines of klog (`E1123 …`, `F1123 …`), of JSON logs, of logfmt, and what Go prints when it dies.
fn is_error(line: &str) -> bool {
    if HARMLESS.iter().any(|known| line.contains(known)) {
        return false;
    }
    if let [level @ b'A'..=b'Z', digit, ..] = line.as_bytes()
        && digit.is_ascii_digit()
    {
        return matches!(level, b'E' | b'F');
    }
    [
        "\"level\":\"error\"",
        "\"level\":\"fatal\"",
        "level=error",
        "level=fatal",
        "panic:",
        "Error: ",
        "error: ",
        "[ERROR]",
    ]
    .iter()
    .any(|mark| line.contains(mark))
}

#[cfg(test)]
mod tests {
    use super::is_error;

    #[test]
    fn error_lines_are_told_from_others() {
        assert!(is_error("E1123 02:58:01.1 1 reflector.go:1] failed"));
        assert!(is_error("Error: unknown flag: --x"));
        assert!(is_error(r#"{"level":"fatal","msg":"x"}"#));
        assert!(!is_error("I1123 02:58:01.1 1 server.go:1] panic: Error: 0"));
        assert!(!is_error("Everything is fine"));
        assert!(!is_error(
            "E1123 03:49:35.758765 34 eviction_manager.go:259] failed to get HasDedicatedImageFs"
        ));
    }
}
