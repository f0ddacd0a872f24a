//! Endpoints from a file, read at start and, when asked, followed while it changes.

mod names;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use llmd_epp_core::plugins::datalayer::file_discovery::{
    self, FileDiscovery, FileError, Listing, MAX_BYTES, Members,
};
use tokio::io::AsyncReadExt;
use tokio_util::task::AbortOnDropHandle;

use crate::datalayer::DataLayer;
use crate::file_watch::{FileWatch, WatchError};

/// Events closer together than this are one change.
const DEBOUNCE: Duration = Duration::from_millis(20);

/// Why discovery cannot start, or a change was not taken over.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// No file, or not readable.
    #[error("endpoints file '{path}' cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// Readable but not a list of endpoints.
    #[error("endpoints file '{path}': {source}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: FileError,
    },
    /// The directory cannot be watched.
    #[error(transparent)]
    Watch(#[from] WatchError),
}

/// Running discovery; dropping it stops following the file.
#[derive(Debug)]
pub struct Discovery {
    _following: Option<AbortOnDropHandle<()>>,
}

/// Loads the file into `layer` and follows it when the configuration says so. After this the pool is
/// known: an empty list is a valid one.
pub async fn start(discovery: &FileDiscovery, layer: &DataLayer) -> Result<Discovery, DiscoveryError> {
    let FileDiscovery { members, path, watch } = discovery;
    // The watch comes first: a change between reading and watching would be lost.
    let watching = if *watch {
        Some(FileWatch::start(path)?)
    } else {
        None
    };
    let (text, listing) = load(path, *members).await?;
    apply(path, listing, layer);
    let following = watching.map(|watch| {
        let follower = Follower {
            members: *members,
            path: path.clone(),
            layer: layer.clone(),
            applied: text,
            failing: false,
            watch,
        };
        AbortOnDropHandle::new(tokio::spawn(follower.run()))
    });
    Ok(Discovery {
        _following: following,
    })
}

struct Follower {
    members: Members,
    path: PathBuf,
    layer: DataLayer,
    applied: Vec<u8>,
    failing: bool,
    watch: FileWatch,
}

impl Follower {
    async fn run(mut self) {
        while self.watch.changed().await {
            tokio::time::sleep(DEBOUNCE).await;
            self.watch.forget();
            match load(&self.path, self.members).await {
                Ok((text, listing)) => {
                    self.failing = false;
                    if text != self.applied {
                        apply(&self.path, listing, &self.layer);
                        self.applied = text;
                    }
                }
                Err(error) if !self.failing => {
                    tracing::warn!(%error, "the endpoints stay as they are");
                    self.failing = true;
                }
                Err(_) => {}
            }
        }
    }
}

fn apply(path: &Path, listing: Listing, layer: &DataLayer) {
    for warning in &listing.warnings {
        tracing::warn!(file = %path.display(), "{warning}");
    }
    tracing::info!(file = %path.display(), endpoints = listing.endpoints.len(), "endpoints read");
    layer.set_endpoints(listing.endpoints);
}

async fn load(path: &Path, members: Members) -> Result<(Vec<u8>, Listing), DiscoveryError> {
    let text = read(path).await.map_err(|source| DiscoveryError::Read {
        path: path.to_owned(),
        source,
    })?;
    match file_discovery::parse(&text, members) {
        Ok(listing) if members == Members::Clusters => Ok((text, names::look_up(listing).await)),
        Ok(listing) => Ok((text, listing)),
        Err(source) => Err(DiscoveryError::Content {
            path: path.to_owned(),
            source,
        }),
    }
}

async fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let file = tokio::fs::File::open(path).await?;
    // One byte more than allowed, so that the parser can say that it is too large.
    file.take(MAX_BYTES + 1).read_to_end(&mut text).await?;
    Ok(text)
}
