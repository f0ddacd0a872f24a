//! The handle of a running candidate.

use kube::{Api, Client};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::candidate::Candidate;
use crate::timings::Timings;

/// Where a candidate stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Trying,
    Leading,
    /// It led and does not any more, or was released.
    Over,
}

/// A running candidate. Dropping it ends it without releasing: others wait until the lease runs out.
#[derive(Debug)]
pub struct Leadership {
    phase: watch::Receiver<Phase>,
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

/// Stands for election until released. `identity` must be unique among the replicas (such as the pod's
/// name and a random part). Needs a tokio runtime; `client` needs get, create and update on leases of
/// `namespace`.
pub fn start(client: Client, namespace: &str, name: &str, identity: &str, timings: Timings) -> Leadership {
    let (sender, phase) = watch::channel(Phase::Trying);
    let stop = CancellationToken::new();
    let candidate = Candidate {
        leases: Api::namespaced(client, namespace),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        identity: identity.to_owned(),
        timings,
        seen: None,
        problem: None,
    };
    let task = tokio::spawn(candidate.run(sender, stop.clone()));
    Leadership {
        phase,
        stop,
        task: AbortOnDropHandle::new(task),
    }
}

impl Leadership {
    /// Whether this process leads now.
    pub fn is_leader(&self) -> bool {
        *self.phase.borrow() == Phase::Leading
    }

    /// Waits until this process leads. Returns at once when it did and does not any more: ask
    /// [`Self::is_leader`].
    pub async fn acquired(&self) {
        self.reached(|phase| phase != Phase::Trying).await;
    }

    /// Waits until this process led and does not any more. It may have been replaced already: stop
    /// acting and end.
    pub async fn lost(&self) {
        self.reached(|phase| phase == Phase::Over).await;
    }

    async fn reached(&self, is_reached: impl Fn(Phase) -> bool) {
        // An error means that the task is gone, and with it the lease.
        let _ = self.phase.clone().wait_for(|phase| is_reached(*phase)).await;
    }

    /// Gives the lease back, so that another replica need not wait for its end. Takes at most
    /// `Timings::renew` and 5 s.
    pub async fn release(self) {
        self.stop.cancel();
        // An error means that the task panicked and has logged itself.
        let _ = self.task.await;
    }
}
