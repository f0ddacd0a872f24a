//! One watched kind: a full list first, then each change, forever.
//!
//! After any error the kind is listed again, with back-off. Until that list is complete, whoever
//! receives the updates keeps what it has: an API server that is away takes nobody out of the pool.

use std::fmt::Debug;
use std::time::Duration;

use futures_util::StreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::cause::{self, Cause, Subject};
use super::watch_metrics::WatchMetrics;

/// Longest wait for the next part of a list.
const LIST: Duration = Duration::from_secs(60);
/// First pause after an error.
const MIN_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause after an error.
const MAX_PAUSE: Duration = Duration::from_secs(15);
/// A watch that lived this long was healthy: the next pause is the first one again.
const HEALTHY: Duration = Duration::from_secs(30);
/// Objects in one page of a list; whole pages are decoded at once.
const PAGE: u32 = 250;
/// Updates that may wait for the receiver; after that the watch waits.
const WAITING: usize = 64;

/// What changed.
#[derive(Debug, PartialEq, Eq)]
pub enum Update<T> {
    /// Everything there is.
    All(Vec<T>),
    /// New or changed.
    Set(T),
    /// Deleted, or no longer selected.
    Gone(T),
    /// The list is stale; sent once per failed attempt.
    Stale(Cause),
}

/// Which objects are watched, and how.
pub struct Watch<K> {
    /// Where they are.
    pub api: Api<K>,
    /// Selectors.
    pub config: watcher::Config,
    /// What they are called.
    pub subject: Subject,
    /// Counts failures.
    pub metrics: WatchMetrics,
}

/// Updates of a running watch; dropping it ends the watch.
pub struct Updates<T> {
    /// The updates.
    pub receiver: mpsc::Receiver<Update<T>>,
    _task: AbortOnDropHandle<()>,
}

impl<K> Watch<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    /// Starts the watch. `convert` takes the wanted parts out of each object as soon as it arrives;
    /// the object itself is not kept.
    pub fn start<T: Send + 'static>(self, convert: impl Fn(K) -> T + Send + Sync + 'static) -> Updates<T> {
        let (sender, receiver) = mpsc::channel(WAITING);
        let task = tokio::spawn(self.run(convert, sender));
        Updates {
            receiver,
            _task: AbortOnDropHandle::new(task),
        }
    }

    async fn run<T: Send + 'static>(
        self,
        convert: impl Fn(K) -> T + Send + Sync + 'static,
        sender: mpsc::Sender<Update<T>>,
    ) {
        let resource = self.subject.resource.clone();
        let mut pause = MIN_PAUSE;
        let mut last_problem = None;
        loop {
            let started = Instant::now();
            let Some(ended) = self.follow(&convert, &sender, &mut last_problem).await else {
                self.metrics.ended(&resource);
                return;
            };
            let (cause, problem) = match &ended {
                Ended::Error(error) => cause::explain(&self.subject, error),
                Ended::Silent => (
                    Cause::Unreachable,
                    format!("the API server did not finish its list of {resource}"),
                ),
            };
            self.metrics.stale(&resource, cause);
            if last_problem.as_ref() == Some(&problem) {
                tracing::debug!(resource, "{problem}");
            } else {
                tracing::error!(resource, "{problem}; the last known state stays in use");
                last_problem = Some(problem);
            }
            if sender.send(Update::Stale(cause)).await.is_err() {
                return;
            }
            if started.elapsed() > HEALTHY {
                pause = MIN_PAUSE;
            }
            // Replicas that lost the same API server come back one after the other.
            tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    /// One list and its watch; `None` when nobody listens any more.
    async fn follow<T>(
        &self,
        convert: &(impl Fn(K) -> T + Send + Sync),
        sender: &mpsc::Sender<Update<T>>,
        last_problem: &mut Option<String>,
    ) -> Option<Ended> {
        let config = self.config.clone().page_size(PAGE);
        let mut events = std::pin::pin!(watcher::watcher(self.api.clone(), config));
        let mut listed = Some(Vec::new());
        loop {
            let event = if listed.is_some() {
                match tokio::time::timeout(LIST, events.next()).await {
                    Ok(event) => event,
                    Err(_) => return Some(Ended::Silent),
                }
            } else {
                // The watch itself has a time limit, after which it goes on where it was.
                events.next().await
            };
            let update = match event? {
                Err(error) => return Some(Ended::Error(Box::new(error))),
                Ok(Event::Init) => {
                    listed = Some(Vec::new());
                    continue;
                }
                Ok(Event::InitApply(object)) => {
                    listed.get_or_insert_default().push(convert(object));
                    continue;
                }
                Ok(Event::InitDone) => {
                    self.metrics.current(&self.subject.resource);
                    if last_problem.take().is_some() {
                        tracing::info!(resource = self.subject.resource, "the list is current again");
                    }
                    Update::All(listed.take().unwrap_or_default())
                }
                Ok(Event::Apply(object)) => Update::Set(convert(object)),
                Ok(Event::Delete(object)) => Update::Gone(convert(object)),
            };
            sender.send(update).await.ok()?;
        }
    }
}

enum Ended {
    Error(Box<watcher::Error>),
    Silent,
}
