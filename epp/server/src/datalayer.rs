//! The data layer: endpoints from discovery, their scraped metrics, and the snapshots made of both.
//!
//! ```text
//!  discovery ── set_endpoints ──▶ members ──▶ snapshot()  every endpoint, for ext-proc
//!  engines ◀── one collector each ──┘  └────▶ routable()  without ejected ones, for the built-in proxy
//! ```
//!
//! A change of the endpoint set is published at once; scraped values are published together, at most
//! once per [`COALESCE`], so that readers never wait and a pool of any size costs a bounded number
//! of snapshots per second. Values that are not refreshed stay with their age (`Snapshot::updated`).

mod buffers;
mod collector;
mod connection;
mod health;
mod members;
mod metrics;
mod status;
mod threads;
pub(crate) mod tls;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use llmd_epp_api::{EndpointName, EndpointSpec, SlotTable, Snapshot};
use llmd_epp_core::config::{DataLayerPlan, SourcePlan};
use llmd_epp_core::plugins::datalayer::polled::PolledSource;
use llmd_epp_core::plugins::datalayer::reader::PageReader;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use members::Members;
use metrics::{Ejections, ErrorCounters};
pub use status::EndpointStatus;
pub use threads::ScrapeThreads;
pub use tls::TlsError;

/// Shortest time between two snapshots that differ in scraped values only.
pub const COALESCE: Duration = Duration::from_millis(10);
/// Shortest scrape interval; lower settings are raised to it.
pub const MIN_INTERVAL: Duration = Duration::from_millis(50);
/// Budget of one poll with its extraction.
pub const SCRAPE_BUDGET: Duration = Duration::from_secs(1);

/// Called with each snapshot whose set of endpoints differs from the one before.
pub type OnEndpoints = Box<dyn Fn(&Snapshot) + Send + Sync>;

/// A polled source and what is read from its pages.
#[derive(Clone, Debug)]
pub struct Source {
    pub(crate) origin: PolledSource,
    pub(crate) extractors: Vec<Arc<PageReader>>,
    pub(crate) tls: Option<Arc<rustls::ClientConfig>>,
}

impl Source {
    /// Reads the source's TLS files.
    pub fn new(origin: PolledSource, extractors: Vec<Arc<PageReader>>) -> Result<Self, TlsError> {
        let tls = origin.tls.as_ref().map(tls::client_config).transpose()?;
        Ok(Self {
            origin,
            extractors,
            tls,
        })
    }

    /// Whether a poll of this source tells that the endpoint itself accepts connections.
    fn probes(&self, endpoint: &EndpointSpec) -> bool {
        let own = SocketAddr::new(endpoint.address, endpoint.port);
        self.origin.address(endpoint) == Some(own)
    }
}

/// A source of a configuration that cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("metrics source '{name}': {source}")]
pub struct SourceError {
    name: String,
    source: TlsError,
}

/// The sources of a configuration, in its order.
pub fn sources(plan: &DataLayerPlan) -> Result<Vec<Source>, SourceError> {
    let built = |planned: &SourcePlan| {
        let extractors = planned
            .extractors
            .iter()
            .map(|(_, extractor)| Arc::clone(extractor));
        Source::new(planned.source.as_ref().clone(), extractors.collect()).map_err(|source| SourceError {
            name: planned.name.name.to_string(),
            source,
        })
    };
    plan.sources.iter().map(built).collect()
}

/// How the data layer runs.
pub struct Options {
    /// Polled sources, in the order in which one tick asks them.
    pub sources: Vec<Source>,
    /// `--refresh-metrics-interval`.
    pub refresh_interval: Duration,
    /// Ask endpoints without work less often.
    pub adaptive: bool,
    /// Age from which scraped values fade, see [`Snapshot::faded`]; `None` keeps them as they are.
    pub fresh_for: Option<Duration>,
    /// Slots shared with whoever reserves load.
    pub slots: Arc<SlotTable>,
    /// Told about each new set of endpoints.
    pub on_endpoints: OnEndpoints,
    /// Expose metrics under their deprecated names too.
    pub deprecated_metrics: bool,
    /// Where collectors and the publisher run; see [`ScrapeThreads`].
    pub runtime: Handle,
}

/// The running data layer. Dropping the last handle stops every collector.
#[derive(Clone)]
pub struct DataLayer {
    shared: Arc<Shared>,
    _stop: Arc<DropGuard>,
}

struct Shared {
    plan: ArcSwap<Plan>,
    refresh_interval: Duration,
    adaptive: bool,
    fresh_for: Option<Duration>,
    /// Held by whoever changes the members or the plan: a member is made for the plan of its time.
    changing: Mutex<()>,
    epoch: tokio::time::Instant,
    members: Members,
    snapshot: ArcSwap<Snapshot>,
    routable: ArcSwap<Snapshot>,
    /// Endpoints about which a good answer is news.
    blemished: AtomicUsize,
    ejections: Ejections,
    dirty: Notify,
    buffers: buffers::Buffers,
    errors: ErrorCounters,
    on_endpoints: OnEndpoints,
    stop: CancellationToken,
    runtime: Handle,
}

/// What collectors poll.
struct Plan {
    sources: Vec<Source>,
    tick: Duration,
}

impl Plan {
    fn new(refresh_interval: Duration, sources: Vec<Source>) -> Self {
        Self {
            tick: base_tick(refresh_interval, &sources),
            sources,
        }
    }
}

impl DataLayer {
    /// Starts the publisher; collectors follow the endpoints.
    pub fn start(options: Options, registry: &prometheus::Registry) -> Result<Self, prometheus::Error> {
        let Options {
            sources,
            refresh_interval,
            adaptive,
            fresh_for,
            slots,
            on_endpoints,
            deprecated_metrics,
            runtime,
        } = options;
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            plan: ArcSwap::from_pointee(Plan::new(refresh_interval, sources)),
            refresh_interval,
            adaptive,
            fresh_for,
            changing: Mutex::default(),
            epoch: tokio::time::Instant::now(),
            members: Members::new(slots),
            snapshot: ArcSwap::default(),
            routable: ArcSwap::default(),
            blemished: AtomicUsize::new(0),
            ejections: Ejections::register(registry)?,
            dirty: Notify::new(),
            buffers: buffers::Buffers::default(),
            errors: ErrorCounters::register(registry, deprecated_metrics)?,
            on_endpoints,
            stop: stop.clone(),
            runtime,
        });
        shared.runtime.spawn(publish_scraped(Arc::clone(&shared)));
        Ok(Self {
            shared,
            _stop: Arc::new(stop.drop_guard()),
        })
    }

    /// Every endpoint that discovery knows.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.snapshot.load_full()
    }

    /// The endpoints that are not ejected; all of a role (label `llm-d.ai/role`) when every one of it is.
    pub fn routable(&self) -> Arc<Snapshot> {
        self.shared.routable.load_full()
    }

    /// Replaces the set of endpoints. Known names keep their slot, and their record while the address
    /// stays; collectors of gone ones stop. The new snapshots are out when this returns.
    pub fn set_endpoints(&self, specs: Vec<EndpointSpec>) {
        let shared = &self.shared;
        let _changing = shared.change();
        let plan = shared.plan.load_full();
        let started = shared
            .members
            .replace(specs, &plan.sources, &shared.stop, |members| {
                shared.publish(members);
                (shared.on_endpoints)(&shared.snapshot.load());
            });
        self.collect(started, &plan);
    }

    /// Polls other sources from now on. Endpoints keep their record until it is read anew.
    pub fn set_sources(&self, sources: Vec<Source>) {
        let shared = &self.shared;
        let _changing = shared.change();
        let plan = Arc::new(Plan::new(shared.refresh_interval, sources));
        shared.plan.store(Arc::clone(&plan));
        let started = shared.members.restart(&plan.sources, &shared.stop);
        self.collect(started, &plan);
    }

    fn collect(&self, members: Vec<Arc<members::Member>>, plan: &Arc<Plan>) {
        for member in members {
            let collector = collector::run(Arc::clone(&self.shared), Arc::clone(plan), member);
            self.shared.runtime.spawn(collector);
        }
    }

    /// A request could not be handed to the endpoint: no connection, or none that lived until the
    /// first response byte. It is left out of [`Self::routable`] until it is seen alive again.
    pub fn report_unreachable(&self, name: &EndpointName, now: Instant) {
        self.report(name, |health| health.unreachable(now));
    }

    /// The endpoint answered a request with an error of its own (5xx), or broke an answer off. The third
    /// time in a row leaves it out until a trial succeeds.
    pub fn report_failed(&self, name: &EndpointName, now: Instant) {
        self.report(name, |health| health.failed(now));
        self.shared.blemished.fetch_max(1, Ordering::Relaxed);
    }

    /// The endpoint answered a request. Costs nothing while all is well.
    pub fn report_answered(&self, name: &EndpointName) {
        if self.shared.blemished.load(Ordering::Relaxed) > 0 {
            self.report(name, health::Health::answered);
        }
    }

    fn report(&self, name: &EndpointName, change: impl FnOnce(&mut health::Health) -> bool) {
        if let Some(member) = self.shared.members.get(name)
            && self.shared.update_health(&member, change)
        {
            // The publisher also waits for the next trial, which may have moved.
            self.shared.dirty.notify_one();
        }
    }

    /// One line per endpoint for people and tools.
    pub fn status(&self, now: Instant) -> Vec<EndpointStatus> {
        self.shared.members.status(now)
    }
}

impl Shared {
    fn change(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes a member's health, publishes what follows, and tells whether anything did.
    fn update_health(
        &self,
        member: &members::Member,
        change: impl FnOnce(&mut health::Health) -> bool,
    ) -> bool {
        let (changed, ejection) = member.update_health(change);
        if changed {
            let reason = ejection.map(health::Ejection::as_str);
            tracing::info!(endpoint = %member.endpoint.name(), reason, "who gets requests changed");
            ejection.inspect(|why| self.ejections.count(*why));
            self.publish_now();
        }
        changed
    }

    fn publish_now(&self) {
        self.members.with(|members| self.publish(members));
    }

    /// Builds both views; the caller holds the members, so versions never go back.
    fn publish(&self, members: &mut members::Table) {
        let now = Instant::now();
        let views = members.views(self.snapshot.load().version + 1, now, self.fresh_for);
        self.blemished.store(views.blemished, Ordering::Relaxed);
        self.snapshot.store(views.all);
        self.routable.store(views.routable);
    }
}

/// Publishes scraped values while there are new ones, and puts endpoints whose time is up on trial.
async fn publish_scraped(shared: Arc<Shared>) {
    loop {
        let change = shared.members.next_change();
        let due = async {
            match change {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = shared.dirty.notified() => {}
            () = due => {}
        }
        shared.publish_now();
        tokio::time::sleep(COALESCE).await;
    }
}

/// max(50 ms, min(flag, smallest source interval)).
fn base_tick(refresh: Duration, sources: &[Source]) -> Duration {
    let intervals = sources.iter().filter_map(|source| source.origin.interval);
    intervals.fold(refresh, Duration::min).max(MIN_INTERVAL)
}
