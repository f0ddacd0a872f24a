//! Run folders on tmpfs, one per cluster, swept when their test process is gone.

use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::sys::statvfs::statvfs;
use nix::unistd::Pid;

use crate::janitor;

const PREFIX: &str = "llmd-e2e-";
/// Bytes for the store of one cluster, which writes ahead 64 MB, its logs, and those of some others.
const NEEDED: u64 = 1 << 30;

/// Makes the folder of the `count`th cluster of this process, after removing folders of dead processes: those of a
/// machine that lost its janitors too.
pub(crate) fn create(count: u32) -> anyhow::Result<PathBuf> {
    let base = base();
    sweep(&base);
    let dir = base.join(format!("{PREFIX}{}-{count}", std::process::id()));
    std::fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

/// `/dev/shm` where it has room: containers often give it 64 MB.
fn base() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    match statvfs(&memory) {
        Ok(facts) if facts.blocks_available() * facts.fragment_size() >= NEEDED => memory,
        _ => std::env::temp_dir(),
    }
}

/// Removes what dead processes have left in a folder and below the cgroup hierarchies. What a janitor is at stays: it
/// takes from its folder what to kill. So does what belongs to somebody else.
fn sweep(base: &Path) {
    for folder in left_in(base).into_iter().filter(|folder| !janitor::has(folder)) {
        for pid in janitor::left(&folder) {
            let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
        }
        let _ = std::fs::remove_dir_all(folder);
    }
    let hierarchies = std::fs::read_dir("/sys/fs/cgroup")
        .into_iter()
        .flatten()
        .flatten();
    for hierarchy in hierarchies
        .map(|entry| entry.path())
        .chain(["/sys/fs/cgroup".into()])
    {
        for group in left_in(&hierarchy) {
            remove_cgroup(&group);
        }
    }
}

/// Folders of this crate whose owner has ended.
fn left_in(base: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(base).into_iter().flatten().flatten();
    let left = entries.filter(|entry| {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX)?.split('-').next()?.parse::<u32>().ok());
        owner.is_some_and(|owner| !Path::new("/proc").join(owner.to_string()).exists())
    });
    left.map(|entry| entry.path()).collect()
}

/// Children first; files in a cgroup are not for removing.
fn remove_cgroup(group: &Path) {
    for entry in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    let _ = std::fs::remove_dir(group);
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;
    use crate::janitor::Janitor;

    /// A run folder of a process that has ended.
    fn of_a_dead_process(base: &Path) -> PathBuf {
        let mut owner = Command::new("true").spawn().unwrap();
        owner.wait().unwrap();
        let dir = base.join(format!("{PREFIX}{}-0", owner.id()));
        std::fs::create_dir(&dir).unwrap();
        dir
    }

    #[test]
    fn a_folder_that_a_janitor_is_at_is_left_to_it() {
        let base = tempfile::tempdir().unwrap();
        let dir = of_a_dead_process(base.path());
        let janitor = Janitor::new(&dir).unwrap();
        sweep(base.path());
        assert!(dir.join("processes").exists());
        drop(janitor);
        assert!(!dir.exists());
    }

    #[test]
    fn processes_of_a_folder_without_a_janitor_end_with_it() {
        let base = tempfile::tempdir().unwrap();
        let dir = of_a_dead_process(base.path());
        std::fs::create_dir(dir.join("processes")).unwrap();
        let mut marked = Command::new("sleep")
            .arg("1000")
            .env("LLMD_E2E_RUN_FOLDER", &dir)
            .spawn()
            .unwrap();
        let mut other = Command::new("sleep").arg("1000").spawn().unwrap();
        for process in [&marked, &other] {
            std::fs::write(dir.join("processes").join(process.id().to_string()), "").unwrap();
        }
        sweep(base.path());
        assert!(!dir.exists());
        assert_eq!(marked.wait().unwrap().signal(), Some(9));
        assert!(other.try_wait().unwrap().is_none(), "its number was used again");
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
