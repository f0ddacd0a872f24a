//! A saved store with the foreign definitions in it, so that a cluster starts with them in 3 s instead of 8.
//!
//! Keys and store are saved together: the store holds the root certificate and tokens that the keys signed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use sha2::{Digest, Sha256};

use crate::artifacts;

/// Changes when what is saved changes otherwise than by its inputs.
const FORMAT: &str = "1";
/// What of a run folder is saved.
const SAVED: [&str; 2] = ["etcd", "pki"];

/// Where the state for a Kubernetes build and a set of definitions is or would be.
pub(crate) fn path(kube: &Path, definitions: &[PathBuf]) -> anyhow::Result<PathBuf> {
    let mut digest = Sha256::new();
    digest.update(FORMAT);
    for input in std::iter::once(kube).chain(definitions.iter().map(PathBuf::as_path)) {
        digest.update(input.as_os_str().as_encoded_bytes());
        digest.update([0]);
    }
    Ok(artifacts::cache()?.join(format!("golden-{}", artifacts::short(&digest.finalize()))))
}

/// Copies a saved state into a run folder. Returns whether there was one.
pub(crate) fn restore(golden: &Path, dir: &Path) -> anyhow::Result<bool> {
    if !golden.exists() {
        return Ok(false);
    }
    for part in SAVED {
        copy(&golden.join(part), dir)?;
    }
    Ok(true)
}

/// Saves the state of a stopped control plane. Of two that do it at once, one wins.
pub(crate) fn save(dir: &Path, golden: &Path) -> anyhow::Result<()> {
    let parent = golden.parent().context("a folder in the cache")?;
    let partial = tempfile::Builder::new()
        .prefix("golden-partial-")
        .tempdir_in(parent)?;
    for part in SAVED {
        copy(&dir.join(part), partial.path())?;
    }
    let partial = partial.keep();
    if std::fs::rename(&partial, golden).is_err() {
        std::fs::remove_dir_all(&partial)?;
        if !golden.exists() {
            bail!("cannot save the state of a new cluster as {}", golden.display());
        }
    }
    Ok(())
}

/// etcd writes its log into files of 64 MB that are mostly holes.
fn copy(from: &Path, into: &Path) -> anyhow::Result<()> {
    let output = Command::new("cp")
        .args(["-a", "--sparse=always"])
        .args([from, into])
        .output()
        .context("cannot start cp")?;
    if !output.status.success() {
        bail!(
            "cannot copy {} to {}: {}",
            from.display(),
            into.display(),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}
