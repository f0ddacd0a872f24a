//! Notices that a file may have changed.
//!
//! The directory is watched, not the file: editors, `rename(2)` and mounted `ConfigMap`s all replace
//! the file, and a watch on the old inode would see nothing more.

use std::path::{Path, PathBuf};

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// The directory cannot be watched.
#[derive(Debug, thiserror::Error)]
#[error("directory '{path}' cannot be watched: {source}")]
pub struct WatchError {
    path: PathBuf,
    source: notify::Error,
}

/// A running watch; dropping it ends it.
#[derive(Debug)]
pub(crate) struct FileWatch {
    events: mpsc::Receiver<()>,
    _watcher: RecommendedWatcher,
}

impl FileWatch {
    /// Watches the directory of `path`. Read the file after this: a change between a reading and the
    /// start of the watch would be lost.
    pub(crate) fn start(path: &Path) -> Result<Self, WatchError> {
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let (changed, events) = mpsc::channel(1);
        let on_event = move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| may_change_content(event.kind)) {
                // A full channel already holds a reason to look.
                let _ = changed.try_send(());
            }
        };
        let wrap = |source| WatchError {
            path: directory.to_owned(),
            source,
        };
        let mut watcher = notify::recommended_watcher(on_event).map_err(wrap)?;
        watcher
            .watch(directory, RecursiveMode::NonRecursive)
            .map_err(wrap)?;
        Ok(Self {
            events,
            _watcher: watcher,
        })
    }

    /// Waits for something that may have changed the file; false when the watch is over.
    pub(crate) async fn changed(&mut self) -> bool {
        self.events.recv().await.is_some()
    }

    /// Forgets what has happened so far.
    pub(crate) fn forget(&mut self) {
        let _ = self.events.try_recv();
    }
}

/// Our own reads are events too and must not wake us.
fn may_change_content(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}
