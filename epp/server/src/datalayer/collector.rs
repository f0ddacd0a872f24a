//! One endpoint's collector: polls every source on its tick and puts what it read into the member.

use std::sync::Arc;
use std::time::{Duration, Instant};

use llmd_epp_api::MetricsRecord;
use llmd_epp_core::plugins::datalayer::reader::Aspect;
use tokio::time::MissedTickBehavior;

use super::buffers::Workspace;
use super::connection::{Connection, PollError};
use super::members::Member;
use super::{Plan, SCRAPE_BUDGET, Shared, Source};

/// Collectors start on one of this many offsets within a tick: spread enough not to poll everybody at
/// once, few enough that one timer wakes many of them together.
const PHASES: u32 = 8;
/// An endpoint without work that was asked so often in a row is asked less often.
const IDLE_POLLS: u32 = 20;
/// Longest pause then: below the 200 ms from which `utilization-detector` takes metrics for stale.
const IDLE_PAUSE: Duration = Duration::from_millis(150);
/// Longest pause after failed polls: also how late a restarted engine is noticed.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(1);

/// From then on an unanswered poll counts against the endpoint: its engine is stopped or stuck, and requests that go
/// there wait with it.
const STALL: Duration = Duration::from_millis(700);

/// The budget is used up.
struct Elapsed;

/// Waits for `work` at most `budget`, and calls `late` once when it takes longer than `early`.
async fn within<T>(
    budget: Duration,
    early: Duration,
    late: impl FnOnce(),
    work: impl Future<Output = T>,
) -> Result<T, Elapsed> {
    let mut work = std::pin::pin!(work);
    if let Ok(done) = tokio::time::timeout(early, &mut work).await {
        return Ok(done);
    }
    late();
    tokio::time::timeout(budget.saturating_sub(early), work)
        .await
        .map_err(|_| Elapsed)
}

/// Polls until the member is stopped.
pub(super) async fn run(shared: Arc<Shared>, plan: Arc<Plan>, member: Arc<Member>) {
    let stop = member.stop.clone();
    tokio::select! {
        () = stop.cancelled() => {}
        () = Collector::new(shared, plan, member).run() => {}
    }
}

struct Collector {
    shared: Arc<Shared>,
    plan: Arc<Plan>,
    member: Arc<Member>,
    polls: Vec<Poll>,
    /// The record before the current one: free again once the snapshot that held it is gone.
    spare: Arc<MetricsRecord>,
}

/// One source of this endpoint.
struct Poll {
    /// Of its source in the plan.
    position: usize,
    connection: Connection,
    aspects: Vec<Aspect>,
    every_ticks: u32,
    ticks_left: u32,
    failures: u32,
    /// Polls in a row that found no work.
    idle: u32,
    /// Asked on each tick, unless there is no work.
    is_adaptive: bool,
    probes: bool,
}

impl Poll {
    /// `None` where nobody says where the endpoint's page is.
    fn new(position: usize, source: &Source, member: &Member, tick: Duration) -> Option<Self> {
        let endpoint = member.endpoint.spec();
        let address = source.origin.address(endpoint)?;
        Some(Self {
            position,
            connection: Connection::new(
                address,
                source.origin.host(endpoint),
                &source.origin.path,
                source.tls.clone(),
            ),
            aspects: source
                .extractors
                .iter()
                .map(|extractor| extractor.aspect_of(endpoint))
                .collect(),
            every_ticks: source.origin.interval.map_or(1, |wanted| ticks(wanted, tick)),
            ticks_left: 0,
            failures: 0,
            idle: 0,
            is_adaptive: source.origin.interval.is_none(),
            probes: source.probes(endpoint),
        })
    }

    /// Whether the source is asked on this tick.
    fn is_due(&mut self) -> bool {
        let due = self.ticks_left == 0;
        if !due {
            self.ticks_left -= 1;
        }
        due
    }

    /// A request came for an endpoint that is asked less often: it is asked now.
    fn wake(&mut self) {
        if self.idle >= IDLE_POLLS && self.failures == 0 {
            self.idle = 0;
            self.ticks_left = 0;
        }
    }

    /// Plans the next poll: on the interval, later after failures, and less often where there is no work.
    fn plan_next(&mut self, tick: Duration, is_idle: bool) {
        self.idle = if self.is_adaptive && is_idle {
            self.idle.saturating_add(1)
        } else {
            0
        };
        let longest = ticks(LONGEST_BACK_OFF, tick).max(self.every_ticks);
        let back_off = 2_u32.saturating_pow(self.failures.saturating_sub(1).min(16));
        let mut every = self.every_ticks.saturating_mul(back_off).min(longest);
        if self.idle >= IDLE_POLLS {
            every = every.max((IDLE_PAUSE.as_nanos() / tick.as_nanos()) as u32);
        }
        self.ticks_left = every - 1;
    }
}

/// `interval` in ticks, rounded to the nearest, at least one.
fn ticks(interval: Duration, tick: Duration) -> u32 {
    (interval.as_secs_f64() / tick.as_secs_f64()).round().max(1.0) as u32
}

impl Collector {
    fn new(shared: Arc<Shared>, plan: Arc<Plan>, member: Arc<Member>) -> Self {
        let polls = plan
            .sources
            .iter()
            .enumerate()
            .filter_map(|(position, source)| Poll::new(position, source, &member, plan.tick))
            .collect();
        Self {
            shared,
            plan,
            member,
            polls,
            spare: Arc::default(),
        }
    }

    async fn run(mut self) {
        if self.polls.is_empty() {
            return;
        }
        let mut ticker = tokio::time::interval_at(self.first_tick(), self.plan.tick);
        ticker.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticker.tick().await;
            let is_asked = self.member.endpoint.slot().requests() > 0;
            for position in 0..self.polls.len() {
                if is_asked {
                    self.polls[position].wake();
                }
                if self.polls[position].is_due() {
                    self.poll(position).await;
                }
            }
        }
    }

    /// The next moment of this endpoint's phase on the grid that all collectors share.
    fn first_tick(&self) -> tokio::time::Instant {
        let phase = self.member.endpoint.slot().id().index % PHASES;
        let grid = self.shared.epoch + self.plan.tick * phase / PHASES;
        let behind = tokio::time::Instant::now().saturating_duration_since(grid);
        let steps = behind.as_nanos().div_ceil(self.plan.tick.as_nanos());
        grid + self.plan.tick * u32::try_from(steps).unwrap_or(u32::MAX)
    }

    async fn poll(&mut self, position: usize) {
        let mut workspace = self.shared.buffers.take();
        let poll = &mut self.polls[position];
        let probes = poll.probes;
        let fetched = {
            let member = &self.member;
            let shared = &self.shared;
            let stalled = move || {
                if probes {
                    shared.update_health(member, |health| health.poll_stalled(Instant::now()));
                }
            };
            let fetch = poll.connection.fetch(&mut workspace.page);
            within(SCRAPE_BUDGET, STALL, stalled, fetch).await
        };
        let outcome = match fetched {
            Ok(Ok(page)) => {
                poll.failures = 0;
                Ok(page)
            }
            Ok(Err(error)) => Err(error),
            Err(Elapsed) => {
                poll.connection.close();
                Err(PollError::TimedOut)
            }
        };
        self.judge(position, outcome.as_ref().err());
        match outcome {
            Ok(page) => self.extract(position, page, &mut workspace),
            Err(error) => {
                self.polls[position].failures += 1;
                let source = &self.plan.sources[self.polls[position].position];
                self.shared.errors.poll_failed(source.origin.source_type.name);
                self.member.note_error(&error);
            }
        }
        let is_idle = self.shared.adaptive && self.is_idle();
        self.polls[position].plan_next(self.plan.tick, is_idle);
        self.shared.buffers.give_back(workspace);
    }

    /// Neither we nor the engine itself know of a request.
    fn is_idle(&self) -> bool {
        let record = self.member.record();
        self.member.endpoint.slot().requests() == 0
            && record.running_requests_size == 0
            && record.waiting_queue_size == 0
    }

    /// Tells the endpoint's health what the poll says about its port.
    fn judge(&self, position: usize, error: Option<&PollError>) {
        if !self.polls[position].probes {
            return;
        }
        self.shared.update_health(&self.member, |health| match error {
            Some(PollError::Connect(_)) => health.poll_refused(Instant::now()),
            // A connection that broke proves nothing, and one that is not answered was noticed before.
            Some(PollError::Broken(_) | PollError::TimedOut) => false,
            _ => health.polled(),
        });
    }

    fn extract(&mut self, position: usize, page: std::ops::Range<usize>, workspace: &mut Workspace) {
        let Workspace { page: bytes, scratch } = workspace;
        let page = &bytes[page];
        let now = Instant::now();
        let current = self.member.record();
        if Arc::get_mut(&mut self.spare).is_none() {
            self.spare = Arc::default();
        }
        let Some(record) = Arc::get_mut(&mut self.spare) else {
            return;
        };
        record.clone_from(&current);
        drop(current);
        let mut updated = false;
        let poll = &self.polls[position];
        let source = &self.plan.sources[poll.position];
        let endpoint = self.member.endpoint.spec();
        for (extractor, aspect) in source.extractors.iter().zip(&poll.aspects) {
            let extracted = extractor.extract((endpoint, *aspect), page, now, scratch, record);
            updated |= extracted.updated;
            if let Some(failure) = extracted.first_failure {
                self.shared
                    .errors
                    .extract_failed(source.origin.source_type.name, extractor.type_name());
                self.member.note_error(&failure);
            }
        }
        if updated {
            let fresh = std::mem::take(&mut self.spare);
            self.spare = self.member.swap_record(fresh);
            self.shared.dirty.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use llmd_epp_core::plugins::datalayer::metrics_data_source::SOURCE;
    use llmd_epp_core::plugins::datalayer::polled::PolledSource;

    use super::*;

    const TICK: Duration = Duration::from_millis(50);

    fn poll(parameters: &str) -> Poll {
        let parameters = serde_yaml::from_str(parameters).expect("parameters");
        let source = PolledSource::new(SOURCE, &parameters).expect("valid");
        let source = Source::new(source, Vec::new()).expect("no TLS");
        Poll {
            position: 0,
            connection: Connection::new(([127, 0, 0, 1], 9).into(), None, "/metrics", None),
            aspects: Vec::new(),
            every_ticks: source.origin.interval.map_or(1, |wanted| ticks(wanted, TICK)),
            ticks_left: 0,
            failures: 0,
            idle: 0,
            is_adaptive: source.origin.interval.is_none(),
            probes: true,
        }
    }

    /// Polls in so many ticks of an endpoint without work.
    fn polls(poll: &mut Poll, ticks: u32) -> u32 {
        let mut polls = 0;
        for _ in 0..ticks {
            if poll.is_due() {
                polls += 1;
                poll.plan_next(TICK, true);
            }
        }
        polls
    }

    #[test]
    fn without_work_every_third_tick_is_enough_after_a_second() {
        let mut endpoint = poll("{}");
        assert_eq!(polls(&mut endpoint, 20), 20);
        assert_eq!(polls(&mut endpoint, 60), 20);
        // A request comes between two polls.
        polls(&mut endpoint, 1);
        endpoint.wake();
        assert!(endpoint.is_due());
        endpoint.plan_next(TICK, false);
        assert!(endpoint.is_due(), "with work on each tick");
    }

    #[test]
    fn a_slower_tick_is_not_made_slower() {
        for (tick, every) in [(50, 3), (70, 2), (100, 1), (200, 1)] {
            let mut endpoint = poll("{}");
            endpoint.idle = IDLE_POLLS;
            endpoint.plan_next(Duration::from_millis(tick), true);
            assert_eq!(endpoint.ticks_left + 1, every, "a tick of {tick} ms");
        }
    }

    #[test]
    fn a_wanted_interval_and_a_back_off_are_kept() {
        let mut wanted = poll("{interval: 100ms}");
        assert_eq!(polls(&mut wanted, 200), 100);
        let mut failing = poll("{}");
        failing.idle = IDLE_POLLS;
        failing.failures = 5;
        failing.plan_next(TICK, true);
        failing.wake();
        assert!(
            !failing.is_due(),
            "a dead engine is not asked more often because requests went there"
        );
    }
}
