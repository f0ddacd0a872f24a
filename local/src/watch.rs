//! Tells when the user's file was edited, whichever way the editor saves.

use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use crate::error::LocalError;

/// Editors write in several steps; the file is read this long after the last of them.
const SETTLE: Duration = Duration::from_millis(150);

/// Sends to `edited` after each change of `path`'s content until the returned watcher is dropped. The directory is
/// watched, because editors replace the file by renaming another one over it.
pub fn watch(path: &Path, edited: mpsc::Sender<()>) -> Result<RecommendedWatcher, LocalError> {
    let failed = |error: notify::Error| LocalError::File {
        action: "watch",
        path: path.to_owned(),
        source: std::io::Error::other(error),
    };
    let (touched, mut touches) = mpsc::channel::<()>(16);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            let _ = touched.try_send(()); // full: a look is due anyway
        }
    })
    .map_err(failed)?;
    let dir = path
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    watcher.watch(dir, RecursiveMode::NonRecursive).map_err(failed)?;
    let path: PathBuf = path.to_owned();
    let mut known = std::fs::read(&path).unwrap_or_default();
    tokio::spawn(async move {
        while touches.recv().await.is_some() {
            while let Ok(Some(())) = tokio::time::timeout(SETTLE, touches.recv()).await {}
            let content = std::fs::read(&path).unwrap_or_default();
            if content != known {
                known = content;
                if edited.send(()).await.is_err() {
                    return;
                }
            }
        }
    });
    Ok(watcher)
}
