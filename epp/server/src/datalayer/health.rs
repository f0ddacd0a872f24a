//! Passive health: which endpoints the built-in proxy leaves out for a while.
//!
//! Behind Kubernetes the kubelet decides who is in the pool. One machine has no kubelet, so an
//! endpoint that cannot be reached is ejected at once and comes back when it is seen alive: by a
//! poll of its own port, or, where nothing polls that port, when a back-off has passed.

use std::time::{Duration, Instant};

/// First back-off of an endpoint that nothing probes; doubles with each failure in a row.
const FIRST_BACK_OFF: Duration = Duration::from_millis(500);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(10);
/// Refused polls in a row that eject: one may be a restart of the listener.
const REFUSED_POLLS: u32 = 2;

/// Health of one endpoint.
#[derive(Clone, Copy, Debug)]
pub(super) struct Health {
    /// Whether a poll would notice that the endpoint is back.
    probed: bool,
    ejected: bool,
    failures: u32,
    refused_polls: u32,
    readmit_at: Option<Instant>,
}

impl Health {
    pub(super) fn new(probed: bool) -> Self {
        Self {
            probed,
            ejected: false,
            failures: 0,
            refused_polls: 0,
            readmit_at: None,
        }
    }

    /// The same health of an endpoint that is, or is not, polled itself from now on.
    #[must_use]
    pub(super) fn probed(self, probed: bool) -> Self {
        Self { probed, ..self }
    }

    /// A request could not be handed over. Whether that changed anything.
    pub(super) fn unreachable(&mut self, now: Instant) -> bool {
        let changed = !self.is_ejected(now);
        self.ejected = true;
        self.failures = self.failures.saturating_add(1);
        if !self.probed {
            let back_off = FIRST_BACK_OFF * 2_u32.saturating_pow(self.failures.min(16) - 1);
            self.readmit_at = Some(now + back_off.min(LONGEST_BACK_OFF));
        }
        changed
    }

    /// A poll of the endpoint's own port found nobody. Whether that changed anything.
    pub(super) fn poll_refused(&mut self, now: Instant) -> bool {
        self.refused_polls = self.refused_polls.saturating_add(1);
        self.refused_polls >= REFUSED_POLLS && !self.is_ejected(now) && self.unreachable(now)
    }

    /// The endpoint answered something. Whether that changed anything.
    pub(super) fn alive(&mut self) -> bool {
        let changed = self.ejected;
        *self = Self::new(self.probed);
        changed
    }

    /// Whether requests should go elsewhere.
    pub(super) fn is_ejected(&self, now: Instant) -> bool {
        self.ejected && self.readmit_at.is_none_or(|at| now < at)
    }

    /// When time alone brings the endpoint back.
    pub(super) fn readmission(&self) -> Option<Instant> {
        self.readmit_at.filter(|_| self.ejected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probed_endpoint_waits_for_the_probe() {
        let now = Instant::now();
        let mut health = Health::new(true);
        assert!(health.unreachable(now));
        assert!(!health.unreachable(now), "already ejected");
        assert!(health.is_ejected(now + Duration::from_hours(1)));
        assert_eq!(health.readmission(), None);
        assert!(health.alive());
        assert!(!health.is_ejected(now));
        assert!(!health.alive(), "nothing left to change");
    }

    #[test]
    fn an_unprobed_endpoint_returns_after_a_growing_back_off() {
        let now = Instant::now();
        let mut health = Health::new(false);
        health.unreachable(now);
        assert_eq!(health.readmission(), Some(now + FIRST_BACK_OFF));
        assert!(health.is_ejected(now));
        let later = now + FIRST_BACK_OFF;
        assert!(!health.is_ejected(later));
        assert!(health.unreachable(later), "ejected again");
        assert_eq!(health.readmission(), Some(later + FIRST_BACK_OFF * 2));
        for _ in 0..100 {
            health.unreachable(later);
        }
        assert_eq!(health.readmission(), Some(later + LONGEST_BACK_OFF));
    }

    #[test]
    fn one_refused_poll_is_forgiven() {
        let now = Instant::now();
        let mut health = Health::new(true);
        assert!(!health.poll_refused(now));
        health.alive();
        assert!(!health.poll_refused(now));
        assert!(health.poll_refused(now));
        assert!(health.is_ejected(now));
    }
}
