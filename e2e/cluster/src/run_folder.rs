//! Run folders on tmpfs, one per cluster, swept when their test process is gone.

use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::sys::statvfs::statvfs;

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

/// Removes what dead processes have left in a folder and below the cgroup hierarchies. What another janitor is at, or
/// belongs to somebody else, stays.
fn sweep(base: &Path) {
    for folder in left_in(base) {
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
