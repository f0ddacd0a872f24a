//! Reads the last lines of engines' logs where a pod's status does not say enough, and keeps only what a table makes
//! of them.
//!
//! A reconcile never waits for a log: it takes what an earlier read found, has the next one started, and comes back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, LogParams};
use kube::{Client, ResourceExt};
use tokio::sync::Semaphore;

use crate::causes::{self, Cause, Phase};
use crate::observe::Workload;

/// The engine in a rendered pod.
const ENGINE: &str = "modelserver";
/// Lines of a read.
const LINES: i64 = 50;
/// Lines of a read after a crash: a root cause stands above the stack traces of those that waited for it.
const LAST_LINES: i64 = 200;
/// Bytes of a read. Less would cut off the newest lines where some are long, such as those with all arguments.
const BYTES: i64 = 64 * 1024;
/// How long a read may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// Between two reads of a pod.
const PAUSE: Duration = Duration::from_secs(15);
/// Between two reads that the API server forbids.
const FORBIDDEN: Duration = Duration::from_secs(300);
/// When to look for the outcome of a read.
const SOON: Duration = Duration::from_secs(1);
/// Reads at a time.
const SEATS: usize = 4;
/// Pods of which something is known; beyond that no further log is read until some are forgotten.
const PODS: usize = 1024;
/// What is known of a pod that nobody asks for any more is forgotten.
const FORGET: Duration = Duration::from_secs(600);

/// What a log told.
#[derive(Clone, Debug)]
pub enum Found {
    /// How far a start is, and since when.
    Progress(Phase, Timestamp),
    /// Why a run ended.
    Failure(Cause),
}

/// Reads the log of a pod's engine once, where the pod's status does not say enough. `None` where it does, and where
/// the log may not be read or says nothing that is known.
pub async fn read_once(client: &Client, pod: &Pod) -> Option<Found> {
    let cause = causes::of_pod(pod);
    let has_ended = cause.is_some();
    let is_open = match &cause {
        Some(cause) => cause.reason == causes::CRASH_LOOP,
        None => causes::phase(pod)?.0 == Phase::Loading,
    };
    if !is_open {
        return None;
    }
    let parameters = parameters(engine(pod)?, has_ended);
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let name = pod.name_any();
    let log = tokio::time::timeout(DEADLINE, api.logs(&name, &parameters)).await;
    found(&log.ok()?.ok()?, has_ended)
}

fn found(log: &str, has_ended: bool) -> Option<Found> {
    if has_ended {
        causes::engine_failure_in_log(log).map(Found::Failure)
    } else {
        causes::progress(log).map(|(phase, since)| Found::Progress(phase, since))
    }
}

/// The last lines of the run in question: of the one before, once the container runs again.
fn parameters(engine: &ContainerStatus, has_ended: bool) -> LogParams {
    let state = engine.state.as_ref();
    let ends_now = state.is_some_and(|state| state.terminated.is_some());
    LogParams {
        container: Some(ENGINE.to_owned()),
        tail_lines: Some(if has_ended { LAST_LINES } else { LINES }),
        limit_bytes: Some(BYTES),
        timestamps: true,
        previous: has_ended && !ends_now,
        ..LogParams::default()
    }
}

/// A run of the engine's container: another one has another log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Life {
    restarts: i32,
    /// It ended, and how it did is the question.
    has_ended: bool,
}

struct Known {
    life: Life,
    found: Option<Found>,
    /// When the next read may begin; `None`: it would find the same.
    next: Option<Instant>,
    asked: Instant,
}

type Pods = Arc<Mutex<HashMap<String, Known>>>;

/// The reader. Without a client it knows nothing.
pub(crate) struct EngineLogs {
    client: Option<Client>,
    seats: Arc<Semaphore>,
    pods: Pods,
}

impl EngineLogs {
    pub(crate) fn new(client: Option<Client>) -> Self {
        Self {
            client,
            seats: Arc::new(Semaphore::new(SEATS)),
            pods: Pods::default(),
        }
    }

    /// Says in `workload` what the log of one of its pods adds. Returns when to look again.
    pub(crate) fn refine(&self, workload: &mut Workload, pods: &[&Pod]) -> Option<Duration> {
        let client = self.client.as_ref()?;
        if workload.is_ready() {
            return None;
        }
        let (pod, has_ended) = in_question(workload, pods)?;
        let engine = engine(pod)?;
        let life = Life {
            restarts: engine.restart_count,
            has_ended,
        };
        let (found, again) = self.ask(client, pod, engine, life)?;
        match found {
            Some(Found::Failure(cause)) => named(workload, &cause),
            Some(Found::Progress(phase, since)) => workload.phase = Some((phase, since)),
            None => {}
        }
        again
    }

    /// What is known, after starting a read where one is due.
    fn ask(
        &self,
        client: &Client,
        pod: &Pod,
        engine: &ContainerStatus,
        life: Life,
    ) -> Option<(Option<Found>, Option<Duration>)> {
        let now = Instant::now();
        let uid = pod.metadata.uid.clone()?;
        let mut pods = lock(&self.pods);
        if !pods.contains_key(&uid) {
            pods.retain(|_, known| now.duration_since(known.asked) < FORGET);
            if pods.len() >= PODS {
                return None;
            }
        }
        let known = pods.entry(uid.clone()).or_insert_with(|| Known::new(life, now));
        known.asked = now;
        if known.life != life {
            // a crash like the one before keeps its name until the new log is read
            let keep = known.life.has_ended && life.has_ended;
            let found = known.found.take().filter(|_| keep);
            *known = Known::new(life, now);
            known.found = found;
        }
        match known.next {
            None => return Some((known.found.clone(), None)),
            Some(next) if next > now => return Some((known.found.clone(), Some(next.duration_since(now)))),
            Some(_) => {}
        }
        let Ok(seat) = Arc::clone(&self.seats).try_acquire_owned() else {
            return Some((known.found.clone(), Some(SOON)));
        };
        known.next = Some(now + PAUSE);
        let found = known.found.clone();
        drop(pods);
        let parameters = parameters(engine, life.has_ended);
        let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
        let (name, pods) = (pod.name_any(), Arc::clone(&self.pods));
        tokio::spawn(async move {
            let _seat = seat;
            let read = tokio::time::timeout(DEADLINE, api.logs(&name, &parameters)).await;
            let mut pods = lock(&pods);
            let Some(known) = pods.get_mut(&uid).filter(|known| known.life == life) else {
                return;
            };
            match read {
                Ok(Ok(log)) => known.learn(&log),
                Ok(Err(kube::Error::Api(status))) if status.code == 403 => {
                    known.next = Some(Instant::now() + FORBIDDEN);
                }
                // Only that it failed: an error of the transport may quote what came.
                Ok(Err(_)) | Err(_) => tracing::debug!(pod = name, "the engine's log could not be read"),
            }
        });
        Some((found, Some(SOON)))
    }
}

impl Known {
    fn new(life: Life, now: Instant) -> Self {
        Self {
            life,
            found: None,
            next: Some(now),
            asked: now,
        }
    }

    fn learn(&mut self, log: &str) {
        let found = found(log, self.life.has_ended);
        if self.life.has_ended {
            // the log of a run that ended does not change
            self.next = None;
            self.found = found;
            return;
        }
        let Some(Found::Progress(phase, since)) = found else {
            return;
        };
        // its first line may have left the tail since
        let since = match self.found {
            Some(Found::Progress(before, earlier)) if before == phase => earlier.min(since),
            _ => since,
        };
        self.found = Some(Found::Progress(phase, since));
    }
}

fn lock(pods: &Mutex<HashMap<String, Known>>) -> MutexGuard<'_, HashMap<String, Known>> {
    pods.lock().unwrap_or_else(PoisonError::into_inner)
}

fn engine(pod: &Pod) -> Option<&ContainerStatus> {
    let mut containers = pod.status.as_ref()?.container_statuses.iter().flatten();
    containers.find(|container| container.name == ENGINE)
}

/// The pod whose log could add something, and whether its engine ended.
fn in_question<'a>(workload: &Workload, pods: &[&'a Pod]) -> Option<(&'a Pod, bool)> {
    let first = |matches: &dyn Fn(&Pod) -> bool| {
        let found = pods.iter().copied().filter(|pod| matches(pod));
        found.min_by(|one, other| one.metadata.name.cmp(&other.metadata.name))
    };
    match workload.causes.first() {
        Some((cause, _)) if cause.reason == causes::CRASH_LOOP => {
            first(&|pod| causes::of_pod(pod).as_ref() == Some(cause)).map(|pod| (pod, true))
        }
        Some(_) => None,
        None => {
            let loading = workload.phase.filter(|(phase, _)| *phase == Phase::Loading)?;
            let is_leaving = |pod: &Pod| pod.metadata.deletion_timestamp.is_some();
            first(&|pod| !is_leaving(pod) && causes::phase(pod) == Some(loading)).map(|pod| (pod, false))
        }
    }
}

/// Puts `cause` in the place of all crashes without a name.
fn named(workload: &mut Workload, cause: &Cause) {
    let mut count = 0;
    workload.causes.retain(|(other, pods)| {
        let is_one = other.reason == causes::CRASH_LOOP || other == cause;
        count += if is_one { *pods } else { 0 };
        !is_one
    });
    workload.causes.insert(0, (cause.clone(), count));
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Life = Life {
        restarts: 0,
        has_ended: false,
    };

    fn told(known: &Known) -> String {
        match known.found.as_ref().unwrap() {
            Found::Progress(phase, since) => format!("{phase} since {since}"),
            Found::Failure(cause) => cause.reason.to_owned(),
        }
    }

    #[test]
    fn a_phase_keeps_its_beginning_when_the_line_has_left_the_tail() {
        let mut known = Known::new(LIFE, Instant::now());
        known.learn("2026-01-01T00:00:01Z Starting to load model org/model...");
        assert_eq!(told(&known), "downloading the model since 2026-01-01T00:00:01Z");
        known.learn("2026-01-01T00:09:00Z model-00002.safetensors:  40%|####");
        assert_eq!(told(&known), "downloading the model since 2026-01-01T00:00:01Z");
        known.learn("2026-01-01T00:09:09Z nothing known");
        assert_eq!(told(&known), "downloading the model since 2026-01-01T00:00:01Z");
        known.learn("2026-01-01T00:10:00Z Loading safetensors checkpoint shards:   0%");
        assert_eq!(told(&known), "loading the weights since 2026-01-01T00:10:00Z");
    }

    #[test]
    fn the_log_of_a_run_that_ended_is_read_once() {
        let life = Life {
            restarts: 1,
            has_ended: true,
        };
        let mut known = Known::new(life, Instant::now());
        known.learn("2026-01-01T00:00:01Z OSError: [Errno 28] No space left on device");
        assert_eq!((told(&known).as_str(), known.next), ("DiskFull", None));
    }

    #[test]
    fn a_cause_takes_the_place_of_crashes_without_a_name() {
        let crash = |pod: &str| (Cause::stalled(causes::CRASH_LOOP, pod), 1);
        let other = (Cause::passing("Unschedulable", "no node"), 4);
        let mut workload = crate::observe::workload("decode", "a-decode", 6, None, &[]);
        workload.causes = vec![crash("a"), crash("b"), other.clone()];
        let cause = Cause::stalled("DiskFull", "full");
        named(&mut workload, &cause);
        assert_eq!(workload.causes, [(cause, 2), other]);
    }
}
