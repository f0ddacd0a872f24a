//! Page buffers shared by all collectors: as many as polls in flight, not as many as endpoints.

use std::sync::{Mutex, PoisonError};

use llmd_epp_core::plugins::datalayer::core_metrics_extractor::Scratch;

/// A buffer that grew beyond this is not kept, in bytes.
const KEEP_BYTES: usize = 256 * 1024;
/// Buffers kept for later polls.
const KEEP: usize = 64;

/// What one poll works with.
#[derive(Default)]
pub(super) struct Workspace {
    /// Raw response bytes.
    pub(super) page: Vec<u8>,
    /// The extractor's working memory.
    pub(super) scratch: Scratch,
}

/// Idle workspaces.
#[derive(Default)]
pub(super) struct Buffers(Mutex<Vec<Workspace>>);

impl Buffers {
    pub(super) fn take(&self) -> Workspace {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle.pop().unwrap_or_default()
    }

    pub(super) fn give_back(&self, mut workspace: Workspace) {
        workspace.page.clear();
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < KEEP && workspace.page.capacity() <= KEEP_BYTES {
            idle.push(workspace);
        }
    }
}
