//! Run folders on tmpfs, one per cluster, swept when their test process is gone.

use std::path::{Path, PathBuf};

use anyhow::Context;

const PREFIX: &str = "llmd-e2e-";

/// Makes the folder of the `count`th cluster of this process, after removing folders of dead processes: those of a
/// machine that lost its janitors too.
pub(crate) fn create(count: u32) -> anyhow::Result<PathBuf> {
    let base = if Path::new("/dev/shm").is_dir() {
        PathBuf::from("/dev/shm")
    } else {
        std::env::temp_dir()
    };
    sweep(&base);
    let dir = base.join(format!("{PREFIX}{}-{count}", std::process::id()));
    std::fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
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
