//! Passive health: which endpoints are left out for a while.
//!
//! ```text
//!            3 failed answers in a row ─▶ out (Failing) ── back-off ─▶ on trial: one request ─ answered ─▶ in
//!  in ──────▶ no connection            ─▶ out (Unreachable) ─ a poll is answered ────────────────────────▶ in
//!            a poll unanswered 700 ms  ─▶ out (Stalled) ───── a poll is answered ────────────────────────▶ in
//! ```
//!
//! Polls read the engine's metrics on its own port. Where nothing polls that port, an endpoint that cannot be reached
//! comes back on trial, as one that fails. Back-offs double from half a second to ten, until an answer is good.

use std::time::{Duration, Instant};

/// First back-off; doubles with each time in a row.
const FIRST_BACK_OFF: Duration = Duration::from_millis(500);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(10);
/// Refused polls in a row that eject: one may be a restart of the listener.
const REFUSED_POLLS: u32 = 2;
/// Failed answers in a row that eject: one or two may be the requests' own fault.
const FAILED_ANSWERS: u32 = 3;

/// Why an endpoint is out. The values of the label `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ejection {
    /// No connection.
    Unreachable,
    /// It accepts connections and answers nothing.
    Stalled,
    /// It answers with errors or breaks off.
    Failing,
}

impl Ejection {
    /// Every reason.
    pub(super) const ALL: [Self; 3] = [Self::Unreachable, Self::Stalled, Self::Failing];

    /// The label's value.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Stalled => "stalled",
            Self::Failing => "failing",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    In,
    Out {
        why: Ejection,
        /// When it comes back on trial; `None` where only a poll brings it back.
        trial_at: Option<Instant>,
        trial: Option<Trial>,
    },
}

/// One request that shows how an endpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Trial {
    since: Instant,
    /// Requests that were ever sent to the endpoint when it began.
    sent: u64,
}

/// Health of one endpoint.
#[derive(Clone, Copy, Debug)]
pub(super) struct Health {
    /// Whether a poll would notice that the endpoint is back.
    probed: bool,
    state: State,
    /// Times out in a row, without a good answer between.
    rounds: u32,
    refused_polls: u32,
    failed_answers: u32,
}

impl Health {
    pub(super) fn new(probed: bool) -> Self {
        Self {
            probed,
            state: State::In,
            rounds: 0,
            refused_polls: 0,
            failed_answers: 0,
        }
    }

    /// The same health of an endpoint that is, or is not, polled itself from now on.
    #[must_use]
    pub(super) fn probed(self, probed: bool) -> Self {
        Self { probed, ..self }
    }

    /// A request could not be handed over. Whether that changed anything.
    pub(super) fn unreachable(&mut self, now: Instant) -> bool {
        self.eject(Ejection::Unreachable, now)
    }

    /// A poll of the endpoint's own port found nobody. Whether that changed anything.
    pub(super) fn poll_refused(&mut self, now: Instant) -> bool {
        self.refused_polls = self.refused_polls.saturating_add(1);
        self.refused_polls >= REFUSED_POLLS && !self.is_ejected(now) && self.unreachable(now)
    }

    /// A poll of the endpoint's own port is not answered. Whether that changed anything.
    pub(super) fn poll_stalled(&mut self, now: Instant) -> bool {
        !self.is_ejected(now) && self.eject(Ejection::Stalled, now)
    }

    /// A poll of the endpoint's own port was answered. Whether that changed anything.
    pub(super) fn polled(&mut self) -> bool {
        self.refused_polls = 0;
        let is_answer = matches!(
            self.state,
            State::Out {
                why: Ejection::Unreachable | Ejection::Stalled,
                ..
            }
        );
        if is_answer {
            (self.state, self.rounds) = (State::In, 0);
        }
        is_answer
    }

    /// A request was answered with an error of the engine, or its answer broke off. Whether that changed anything.
    pub(super) fn failed(&mut self, now: Instant) -> bool {
        self.failed_answers = self.failed_answers.saturating_add(1);
        if self.is_on_trial(now) {
            return self.eject(Ejection::Failing, now);
        }
        self.failed_answers >= FAILED_ANSWERS && !self.is_ejected(now) && self.eject(Ejection::Failing, now)
    }

    /// A request was answered. Whether that changed anything.
    pub(super) fn answered(&mut self) -> bool {
        self.failed_answers = 0;
        let was_out = self.state != State::In;
        *self = Self::new(self.probed);
        was_out
    }

    /// Whether [`Self::answered`] would change anything.
    pub(super) fn is_spotless(&self) -> bool {
        self.state == State::In && self.failed_answers == 0
    }

    /// Why requests go elsewhere, if they do.
    pub(super) fn ejection(&self, now: Instant) -> Option<Ejection> {
        match self.state {
            State::Out { why, trial_at, .. } if trial_at.is_none_or(|at| now < at) => Some(why),
            _ => None,
        }
    }

    /// Whether requests go elsewhere.
    pub(super) fn is_ejected(&self, now: Instant) -> bool {
        self.ejection(now).is_some()
    }

    /// Whether one request at a time may find out how it is.
    pub(super) fn is_on_trial(&self, now: Instant) -> bool {
        matches!(self.state, State::Out { trial_at: Some(at), .. } if now >= at)
    }

    /// Of an endpoint on trial: how many requests may have been sent to it for one more. `sent` is how many were, ever.
    /// A trial that nobody decided begins anew after the longest back-off.
    pub(super) fn trial(&mut self, now: Instant, sent: u64) -> Option<u64> {
        let State::Out {
            trial_at: Some(at),
            trial,
            ..
        } = &mut self.state
        else {
            return None;
        };
        if now < *at {
            return None;
        }
        let current = trial.filter(|trial| now < trial.since + LONGEST_BACK_OFF);
        let current = current.unwrap_or(Trial { since: now, sent });
        *trial = Some(current);
        Some(current.sent)
    }

    /// When time alone changes something.
    pub(super) fn next_change(&self) -> Option<Instant> {
        match self.state {
            State::Out {
                trial: Some(trial), ..
            } => Some(trial.since + LONGEST_BACK_OFF),
            State::Out { trial_at, .. } => trial_at,
            State::In => None,
        }
    }

    fn eject(&mut self, why: Ejection, now: Instant) -> bool {
        let changed = !self.is_ejected(now);
        self.rounds = self.rounds.saturating_add(1);
        let waits_for_poll = self.probed && why != Ejection::Failing;
        let back_off = FIRST_BACK_OFF * 2_u32.saturating_pow(self.rounds.min(16) - 1);
        self.state = State::Out {
            why,
            trial_at: (!waits_for_poll).then(|| now + back_off.min(LONGEST_BACK_OFF)),
            trial: None,
        };
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probed_endpoint_that_is_gone_waits_for_the_probe() {
        let now = Instant::now();
        let mut health = Health::new(true);
        assert!(health.unreachable(now));
        assert!(!health.unreachable(now), "already ejected");
        assert!(health.is_ejected(now + Duration::from_hours(1)));
        assert_eq!(health.next_change(), None);
        assert!(health.polled());
        assert!(!health.is_ejected(now));
        assert!(!health.polled(), "nothing left to change");
    }

    #[test]
    fn an_unprobed_endpoint_returns_on_trial_after_a_growing_back_off() {
        let now = Instant::now();
        let mut health = Health::new(false);
        health.unreachable(now);
        assert_eq!(health.next_change(), Some(now + FIRST_BACK_OFF));
        assert!(health.is_ejected(now) && !health.is_on_trial(now));
        let later = now + FIRST_BACK_OFF;
        assert!(!health.is_ejected(later) && health.is_on_trial(later));
        assert!(health.unreachable(later), "ejected again");
        assert_eq!(health.next_change(), Some(later + FIRST_BACK_OFF * 2));
        for _ in 0..100 {
            health.unreachable(later);
        }
        assert_eq!(health.next_change(), Some(later + LONGEST_BACK_OFF));
        assert!(health.answered());
        assert!(!health.is_on_trial(later + LONGEST_BACK_OFF));
    }

    #[test]
    fn one_refused_poll_is_forgiven() {
        let now = Instant::now();
        let mut health = Health::new(true);
        assert!(!health.poll_refused(now));
        health.polled();
        assert!(!health.poll_refused(now));
        assert!(health.poll_refused(now));
        assert_eq!(health.ejection(now), Some(Ejection::Unreachable));
    }

    #[test]
    fn the_third_failed_answer_in_a_row_ejects_and_polls_do_not_bring_it_back() {
        let now = Instant::now();
        let mut health = Health::new(true);
        assert!(!health.failed(now) && !health.failed(now));
        assert!(!health.answered() && !health.failed(now) && !health.failed(now));
        assert!(health.failed(now));
        assert_eq!(health.ejection(now), Some(Ejection::Failing));
        assert!(!health.polled(), "its metrics may be fine all the while");
        assert!(!health.failed(now), "requests that were on their way");

        let trial = now + FIRST_BACK_OFF;
        assert!(health.is_on_trial(trial));
        assert_eq!(health.trial(trial, 40), Some(40));
        assert_eq!(
            health.trial(trial, 41),
            Some(40),
            "one request more, not one at each look"
        );
        assert_eq!(health.next_change(), Some(trial + LONGEST_BACK_OFF));
        assert_eq!(
            health.trial(trial + LONGEST_BACK_OFF, 41),
            Some(41),
            "nobody decided it"
        );
        assert!(health.failed(trial), "one failure ends a trial");
        assert!(health.is_ejected(trial + FIRST_BACK_OFF));
        let second = trial + FIRST_BACK_OFF * 2;
        assert!(health.is_on_trial(second) && health.answered());
        assert!(health.is_spotless());
        assert!(!health.failed(second), "three are needed again");
    }

    #[test]
    fn a_poll_without_an_answer_ejects_until_one_is_answered() {
        let now = Instant::now();
        let mut health = Health::new(true);
        assert!(health.poll_stalled(now));
        assert_eq!(health.ejection(now), Some(Ejection::Stalled));
        assert!(!health.poll_stalled(now));
        assert!(health.polled() && !health.is_ejected(now));
    }
}
