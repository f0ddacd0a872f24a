//! A child process with captured output that ends with its guard.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::poll::{DEADLINE, poll_until};

/// Lines kept per process; older ones are dropped.
const LOG_LINES: usize = 20_000;
/// Lines printed of each process when a test fails.
const SHOWN_LINES: usize = 200;

/// The `llmd` binary under test: `LLMD_BIN`, else the one beside the running test's target directory.
///
/// # Panics
/// When there is none; the message says how to build it.
pub fn llmd_bin() -> PathBuf {
    if let Some(path) = std::env::var_os("LLMD_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().expect("the running test has a path");
    let built = test
        .ancestors()
        .nth(2)
        .expect("target/PROFILE/deps/TEST")
        .join("llmd");
    assert!(
        built.exists(),
        "no llmd binary: run `cargo build -p llmd` or `cargo xtask test`"
    );
    built
}

/// A running child. Dropping it kills it by pid; a failing test prints what it had said.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Process {
    /// Starts `llmd` with the given arguments.
    pub fn llmd<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Self {
        let mut command = Command::new(llmd_bin());
        command.args(arguments);
        Self::spawn("llmd", command)
    }

    /// Starts any command with captured output and no input.
    ///
    /// # Panics
    /// When the program cannot be started.
    pub fn spawn(name: &str, mut command: Command) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let lines = Arc::new(Mutex::new(Vec::new()));
        collect(child.stdout.take().expect("piped"), Arc::clone(&lines));
        collect(child.stderr.take().expect("piped"), Arc::clone(&lines));
        Self {
            name: name.to_owned(),
            child,
            lines,
        }
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything said so far, both streams, one line each.
    pub fn log(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a line that `pick` accepts.
    ///
    /// # Panics
    /// When the process ends or the deadline passes first.
    pub fn wait_for_line<T>(&mut self, what: &str, pick: impl Fn(&str) -> Option<T>) -> T {
        let mut ended = false;
        poll_until(what, DEADLINE, || {
            let found = self.log().iter().find_map(|line| pick(line));
            assert!(found.is_some() || !ended, "{} ended before {what}", self.name);
            ended = self.child.try_wait().expect("its status").is_some();
            found
        })
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid().cast_signed()), signal).expect("a running process");
    }

    /// Waits for the end of the process.
    ///
    /// # Panics
    /// When the deadline passes first.
    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        poll_until(&what, deadline, || self.child.try_wait().expect("its status"))
    }

    /// Ends it as a crash would, if it is still there, and waits until it is gone.
    pub fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// CPU time used so far, user and system, in seconds (`/proc/PID/stat`, fields 14 and 15).
    ///
    /// # Panics
    /// When the process is gone.
    pub fn cpu_seconds(&self) -> f64 {
        cpu_seconds(self.pid())
    }
}

/// CPU time of a process, user and system, in seconds (`proc(5)`, `/proc/PID/stat`).
///
/// # Panics
/// When the process is gone.
pub fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a running process");
    let after_name = stat.rsplit_once(") ").expect("a process name in parentheses").1;
    let ticks: u64 = after_name
        .split(' ')
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().expect("clock ticks"))
        .sum();
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)
        .expect("sysconf")
        .expect("CLK_TCK");
    ticks as f64 / per_second as f64
}

/// Resident memory of a process in MiB, `VmRSS` (`proc(5)`).
///
/// # Panics
/// When the process is gone.
pub fn resident_mib(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number
        .and_then(|kib| kib.parse::<f64>().ok())
        .expect("VmRSS in kB")
        / 1024.0
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            eprintln!("--- {} said:", self.name);
            let lines = self.log();
            for line in &lines[lines.len().saturating_sub(SHOWN_LINES)..] {
                eprintln!("{line}");
            }
        }
    }
}

fn collect(stream: impl Read + Send + 'static, lines: Arc<Mutex<Vec<String>>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n') {
            let Ok(line) = line else { return };
            let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
            if lines.len() >= LOG_LINES {
                lines.drain(..LOG_LINES / 2);
            }
            lines.push(String::from_utf8_lossy(&line).into_owned());
        }
    });
}
