//! The clean-up of a cluster, in a process of its own so that it happens however the test process ends.
//!
//! It reads its input until the end, which comes when the guard is dropped, when the test process exits and
//! when it is killed. Then it kills the recorded processes and removes the run folder.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::Context;

/// `$1` is the run folder. Lines of `pids` are process ids; lines of `cgroups` are folders that pods have left.
/// Processes get 5 s to end; cgroups get a minute, because pods of a busy machine take long to die with their namespace.
const SCRIPT: &str = r#"
cat >/dev/null
pids=$(cat "$1/pids" 2>/dev/null)
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

/// The janitor of one run folder.
#[derive(Debug)]
pub(crate) struct Janitor {
    dir: PathBuf,
    child: Child,
}

impl Janitor {
    /// Takes a run folder into care.
    pub(crate) fn new(dir: &Path) -> anyhow::Result<Self> {
        let child = Command::new("sh")
            .args(["-c", SCRIPT, "llmd-e2e-janitor"])
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0) // an interrupt of the terminal is for the test, not for the clean-up after it
            .spawn()
            .context("cannot start sh")?;
        Ok(Self {
            dir: dir.to_path_buf(),
            child,
        })
    }

    /// Has a process killed at the end.
    pub(crate) fn kills(&self, pid: u32) -> anyhow::Result<()> {
        self.note("pids", &pid.to_string())
    }

    /// Has a cgroup removed at the end, with all below it.
    pub(crate) fn removes_cgroup(&self, folder: &Path) -> anyhow::Result<()> {
        self.note("cgroups", &folder.display().to_string())
    }

    /// A process that has ended needs no killing: its number may belong to another one soon.
    pub(crate) fn forget(&self, pid: u32) -> anyhow::Result<()> {
        let file = self.dir.join("pids");
        let kept: String = std::fs::read_to_string(&file)?
            .lines()
            .filter(|line| *line != pid.to_string())
            .flat_map(|line| [line, "\n"])
            .collect();
        Ok(std::fs::write(file, kept)?)
    }

    fn note(&self, file: &str, line: &str) -> anyhow::Result<()> {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.join(file))?;
        Ok(writeln!(file, "{line}")?)
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
