//! Two profiles whose endpoints are chosen together: the pair with the highest sum of both totals.

use llmd_epp_api::plugin::ProfileRun;
use llmd_epp_api::{Cycle, Random};

use super::Scheduler;
use super::metrics::Stopwatch;
use super::profile::ProfileScratch;

/// The best pair so far.
struct Best {
    rival: u32,
    total: f64,
    run: ProfileRun,
}

impl Scheduler {
    /// Runs profile `next` once for each of the best candidates of `first`, and puts the better half of a pair in front
    /// of what `first` picked.
    ///
    /// What `first` picked is tried first and wins ties, so its picker decides where the pairs do not differ. Where
    /// `next` finds nobody for any of them, `first` keeps its pick and the run stays empty.
    #[expect(
        clippy::too_many_arguments,
        reason = "what one profile's run takes, and the other run"
    )]
    pub(super) fn run_pair(
        &self,
        cycle: &mut Cycle<'_>,
        first: &mut ProfileRun,
        next: usize,
        candidates: &[u32],
        random: &Random,
        scratch: &mut ProfileScratch,
        watch: &mut Stopwatch<'_>,
    ) -> ProfileRun {
        let Some((profile, picked)) = self.profiles.get(next).zip(first.picked.first().copied()) else {
            return ProfileRun::default();
        };
        let mut best: Option<Best> = None;
        for (rival, own) in rivals(cycle, first, picked, self.handler.rivals(), random) {
            if !self.handler.propose(cycle, rival) {
                continue;
            }
            let run = profile.run(cycle, candidates, random, true, scratch, watch);
            let Some(partner) = run.picked.first() else {
                continue;
            };
            let scored = run.scored.iter().find(|(index, _)| index == partner);
            let total = own + scored.map_or(0.0, |(_, total)| *total);
            if best.as_ref().is_none_or(|best| total > best.total) {
                best = Some(Best { rival, total, run });
            }
        }
        let (rival, run) = best.map_or((picked, ProfileRun::default()), |best| (best.rival, best.run));
        // Whoever reads the attribute from here on sees the one that was chosen, not the one tried last.
        self.handler.propose(cycle, rival);
        let room = first.picked.len();
        first.picked.retain(|index| *index != rival);
        first.picked.insert(0, rival);
        first.picked.truncate(room);
        run
    }
}

/// `picked` and the best of the others with their totals, `most` at most. Of equal ones those with fewer requests in
/// flight come first, then chance decides, as in `max-score-picker`.
fn rivals(cycle: &Cycle<'_>, run: &ProfileRun, picked: u32, most: usize, random: &Random) -> Vec<(u32, f64)> {
    let in_flight = |index: u32| cycle.snapshot.endpoints[index as usize].slot().requests();
    let mut keyed: Vec<_> = run
        .scored
        .iter()
        .map(|(index, total)| (*index != picked, *total, in_flight(*index), random.bits(), *index))
        .collect();
    keyed.sort_unstable_by(|one, other| {
        let by_total = one.0.cmp(&other.0).then(other.1.total_cmp(&one.1));
        by_total.then_with(|| (one.2, one.3).cmp(&(other.2, other.3)))
    });
    let ordered = keyed.into_iter().map(|(_, total, _, _, index)| (index, total));
    ordered.take(most).collect()
}
