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

fn sweep(base: &Path) {
    let Ok(entries) = std::fs::read_dir(base) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX)?.split('-').next()?.parse::<u32>().ok());
        // its own janitor may be at it, or it may be somebody else's: what cannot be removed stays
        if owner.is_some_and(|owner| !Path::new("/proc").join(owner.to_string()).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
