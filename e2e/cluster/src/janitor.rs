//! The clean-up of a cluster, in a process of its own so that it happens however the test process ends.
//!
//! It reads its input until the end, which comes when the guard is dropped, when the test process exits and
//! when it is killed. Then it kills the recorded processes and removes the run folder.
//!
//! A process records itself, as an empty file with its number in [`PROCESSES`], before it becomes the program: there
//! is no moment at which it runs and nobody knows of it. The janitor renames that folder before it looks, so that what
//! starts later cannot record itself and ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;

/// Folder of a run folder with a file per process.
const PROCESSES: &str = "processes";
/// What it is called when nothing may start any more.
const ENDING: &str = "ending";
/// File of a run folder that its janitor holds locked, as its standard output: so no number of a process is needed.
const LOCK: &str = "lock";
/// Variable that marks processes of a run folder. A number alone may belong to another process one day.
const MARK: &str = "LLMD_E2E_RUN_FOLDER";

/// Longest that a process which is about to become a program is waited for.
const EXEC: Duration = Duration::from_millis(100);

/// `$1` is the run folder. Lines of `cgroups` are folders that pods have left.
/// Processes get 5 s to end; cgroups get a minute, because pods of a busy machine take long to die with their namespace.
const SCRIPT: &str = r#"
cat >/dev/null
mv "$1/processes" "$1/ending" 2>/dev/null
pids=$(ls "$1/ending" 2>/dev/null)
[ -z "$pids" ] || kill -9 $pids 2>/dev/null
for try in $(seq 250); do
  left=
  for pid in $pids; do
    case $(sed 's/.*) //' /proc/$pid/stat 2>/dev/null) in '' | Z*) ;; *) left=yes ;; esac
  done
  [ -n "$left" ] || break
  sleep 0.02
done
if [ -e "$1/cgroups" ]; then
  for try in $(seq 3000); do
    left=
    while read -r folder; do
      find "$folder" -depth -type d -exec rmdir {} + 2>/dev/null
      [ ! -d "$folder" ] || left=yes
    done <"$1/cgroups"
    [ -n "$left" ] || break
    sleep 0.02
  done
fi
rm -rf "$1"
"#;

/// `$0` is the folder of processes, the arguments are the program and its own.
const RECORDED: &str = r#": >"$0/$$" || exit 1; exec "$@""#;

/// The janitor of one run folder.
#[derive(Debug)]
pub(crate) struct Janitor {
    dir: PathBuf,
    child: Child,
}

impl Janitor {
    /// Takes a run folder into care.
    pub(crate) fn new(dir: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir(dir.join(PROCESSES))?;
        let lock = File::create(dir.join(LOCK))?;
        lock.lock()?;
        let child = Command::new("sh")
            .args(["-c", SCRIPT, "llmd-e2e-janitor"])
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(lock)
            .stderr(Stdio::null())
            .process_group(0) // an interrupt of the terminal is for the test, not for the clean-up after it
            .spawn()
            .context("cannot start sh")?;
        Ok(Self {
            dir: dir.to_path_buf(),
            child,
        })
    }

    /// The same command, killed at the end. It keeps its program, arguments and environment only: what becomes of its
    /// streams and its process group is for the caller to say.
    pub(crate) fn recorded(&self, command: &Command) -> Command {
        let mut shell = Command::new("sh");
        shell
            .args(["-c", RECORDED])
            .arg(self.dir.join(PROCESSES))
            .arg(command.get_program())
            .args(command.get_args())
            .env(MARK, &self.dir);
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        shell
    }

    /// Has a cgroup removed at the end, with all below it.
    pub(crate) fn removes_cgroup(&self, folder: &Path) -> anyhow::Result<()> {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.join("cgroups"))?;
        Ok(writeln!(file, "{}", folder.display())?)
    }

    /// A process that has ended needs no killing: its number may belong to another one soon.
    pub(crate) fn forget(&self, pid: u32) {
        // one that was killed before it recorded itself has no file
        let _ = std::fs::remove_file(self.dir.join(PROCESSES).join(pid.to_string()));
    }
}

/// Whether a janitor is at work, or will be, on this run folder.
pub(crate) fn has(dir: &Path) -> bool {
    let lock = File::open(dir.join(LOCK));
    lock.is_ok_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock)))
}

/// Processes of a run folder that outlived their janitor.
pub(crate) fn left(dir: &Path) -> Vec<u32> {
    let mark = [MARK.as_bytes(), b"=", dir.as_os_str().as_encoded_bytes()].concat();
    let records = [PROCESSES, ENDING].map(|name| std::fs::read_dir(dir.join(name)));
    let records = records.into_iter().flatten().flatten().flatten();
    records
        .filter_map(|record| record.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| {
            let environment = environment(*pid);
            environment.split(|byte| *byte == 0).any(|entry| entry == mark)
        })
        .collect()
}

/// What a process was started with. In the middle of its `exec` a process shows nothing for a moment.
fn environment(pid: u32) -> Vec<u8> {
    let deadline = Instant::now() + EXEC;
    loop {
        match std::fs::read(format!("/proc/{pid}/environ")) {
            Ok(empty) if empty.is_empty() && Instant::now() < deadline => std::thread::yield_now(),
            Ok(environment) => return environment,
            Err(_) => return Vec::new(),
        }
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(janitor: &Janitor) -> Child {
        let mut sleep = Command::new("sleep");
        sleep.arg("1000").env("LLMD_E2E_EXTRA", "kept");
        janitor.recorded(&sleep).spawn().unwrap()
    }

    fn until(what: &str, mut condition: impl FnMut() -> bool) {
        let end = std::time::Instant::now() + crate::DEADLINE;
        while !condition() {
            assert!(std::time::Instant::now() < end, "{what}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_process_is_recorded_before_it_is_the_program_and_forgotten_one_by_one() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("run");
        std::fs::create_dir(&dir).unwrap();
        let janitor = Janitor::new(&dir).unwrap();
        assert!(has(&dir));
        let mut children = [started(&janitor), started(&janitor)];
        until("two records", || left(&dir).len() == 2);
        children[0].kill().unwrap();
        children[0].wait().unwrap();
        janitor.forget(children[0].id());
        assert_eq!(left(&dir), [children[1].id()]);

        drop(janitor);
        assert!(!dir.exists());
        assert!(!has(&dir));
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&children[1].wait().unwrap()),
            Some(9)
        );
    }

    #[test]
    fn nothing_starts_after_the_janitor_has_looked() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("run");
        std::fs::create_dir(&dir).unwrap();
        let janitor = Janitor::new(&dir).unwrap();
        std::fs::rename(dir.join(PROCESSES), dir.join(ENDING)).unwrap();
        let status = started(&janitor).wait().unwrap();
        assert!(!status.success());
        assert_eq!(left(&dir), [0; 0]);
    }
}
