//! Follows the configuration file: a `ConfigMap` that is mounted, or a file that somebody edits.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::{ReloadError, Reloaded, Reloader};
use crate::file_watch::FileWatch;

/// Largest configuration that is read, in bytes.
const MAX_BYTES: u64 = 4 << 20;
/// Without an event for so long a change is complete: editors write in steps, and half a file may be a
/// configuration, too.
const QUIET: Duration = Duration::from_millis(100);
/// A file that never stops changing is read nevertheless.
const LONGEST_UNREST: Duration = Duration::from_secs(2);
/// The file is read so often without any event: some file systems send none.
const LOOK: Duration = Duration::from_secs(10);

/// The configuration file cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("--config-file '{path}' cannot be read: {source}")]
pub struct ConfigFileError {
    path: PathBuf,
    source: io::Error,
}

/// Reads a configuration file of at most 4 MiB.
pub async fn read(path: &Path) -> Result<String, ConfigFileError> {
    let wrap = |source| ConfigFileError {
        path: path.to_owned(),
        source,
    };
    let mut text = String::new();
    let file = tokio::fs::File::open(path).await.map_err(wrap)?;
    let limited = file.take(MAX_BYTES + 1).read_to_string(&mut text).await;
    if limited.map_err(wrap)? as u64 > MAX_BYTES {
        let reason = format!("it is longer than {MAX_BYTES} bytes");
        return Err(wrap(io::Error::new(io::ErrorKind::FileTooLarge, reason)));
    }
    Ok(text)
}

/// Follows `path` until the answer is dropped. `text` is what runs; a change since it was read is
/// noticed.
pub fn follow(path: PathBuf, text: String, reloader: Reloader) -> AbortOnDropHandle<()> {
    let watch = FileWatch::start(&path)
        .inspect_err(|error| tracing::warn!(%error, "the configuration file is read every {LOOK:?}"))
        .ok();
    let follower = Follower {
        path,
        seen: Ok(text),
        reloader,
        watch,
    };
    AbortOnDropHandle::new(tokio::spawn(follower.run()))
}

struct Follower {
    path: PathBuf,
    /// What the file said, or why it could not be read, when it was looked at last.
    seen: Result<String, String>,
    reloader: Reloader,
    watch: Option<FileWatch>,
}

impl Follower {
    async fn run(mut self) {
        loop {
            self.look().await;
            self.until_changed().await;
        }
    }

    /// Returns when the file may have changed and came to rest.
    async fn until_changed(&mut self) {
        let next_look = Instant::now() + LOOK;
        let Some(watch) = &mut self.watch else {
            tokio::time::sleep_until(next_look).await;
            return;
        };
        match timeout_at(next_look, watch.changed()).await {
            Ok(true) => {}
            Ok(false) => self.watch = None,
            Err(_elapsed) => return,
        }
        let Some(watch) = &mut self.watch else { return };
        let end = Instant::now() + LONGEST_UNREST;
        while Instant::now() < end {
            if timeout_at(Instant::now() + QUIET, watch.changed()).await != Ok(true) {
                return;
            }
        }
    }

    async fn look(&mut self) {
        let file = read(&self.path).await;
        let now = match &file {
            Ok(text) => Ok(text.clone()),
            Err(error) => Err(error.to_string()),
        };
        if now == self.seen {
            return;
        }
        self.seen = now;
        let outcome = match file {
            Ok(text) => self.reloader.reload(&text),
            Err(error) => self.reloader.unreadable(error),
        };
        report(&self.path, &outcome);
    }
}

fn report(path: &Path, outcome: &Result<Reloaded, ReloadError>) {
    let file = path.display();
    match outcome {
        Ok(reloaded) if reloaded.differences.is_empty() => {
            tracing::info!(%file, "the configuration file says what runs");
        }
        Ok(reloaded) => {
            for warning in &reloaded.warnings {
                tracing::warn!("configuration: {warning}");
            }
            let changes = reloaded.differences.join("; ");
            tracing::info!(%file, changes, carried = reloaded.carried, "the configuration was reloaded");
        }
        Err(error) => {
            tracing::error!(%file, %error, "the configuration was refused; the running one stays");
        }
    }
}
