//! The members of the pool: each endpoint with its record, its health and its collector.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use llmd_epp_api::{Endpoint, EndpointName, EndpointSpec, MetricsRecord, ROLE_LABEL, SlotTable, Snapshot};
use tokio_util::sync::CancellationToken;

use super::Source;
use super::health::{Ejection, Health};
use super::status::EndpointStatus;

/// One endpoint of the pool.
pub(super) struct Member {
    pub(super) endpoint: Arc<Endpoint>,
    /// Name of the engine whose metric names are used, for the status page.
    engine_type: Arc<str>,
    /// Ends the collector.
    pub(super) stop: CancellationToken,
    state: Mutex<State>,
}

struct State {
    record: Arc<MetricsRecord>,
    health: Health,
    errors: u64,
    last_error: Option<String>,
}

impl Member {
    fn new(
        endpoint: Arc<Endpoint>,
        record: Arc<MetricsRecord>,
        sources: &[Source],
        stop: CancellationToken,
    ) -> Self {
        let probes = sources.iter().any(|source| source.probes(endpoint.spec()));
        let engine_type = sources
            .iter()
            .flat_map(|source| &source.extractors)
            .find_map(|extractor| extractor.engine_name(endpoint.spec()));
        Self {
            engine_type: engine_type.unwrap_or_default(),
            endpoint,
            stop,
            state: Mutex::new(State {
                record,
                health: Health::new(probes),
                errors: 0,
                last_error: None,
            }),
        }
    }

    /// The same endpoint with what is known about it, for other sources.
    fn polled_by(&self, sources: &[Source], stop: CancellationToken) -> Self {
        let fresh = Self::new(Arc::clone(&self.endpoint), self.record(), sources, stop);
        let probed = sources.iter().any(|source| source.probes(self.endpoint.spec()));
        let health = self.state().health.probed(probed);
        fresh.state().health = health;
        fresh
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The current record.
    pub(super) fn record(&self) -> Arc<MetricsRecord> {
        Arc::clone(&self.state().record)
    }

    /// Exchanges the record; the old one comes back so that its memory can be used again.
    pub(super) fn swap_record(&self, record: Arc<MetricsRecord>) -> Arc<MetricsRecord> {
        std::mem::replace(&mut self.state().record, record)
    }

    /// Counts a failed poll or extraction; the text is kept only when it differs from the last one.
    pub(super) fn note_error(&self, error: &dyn std::fmt::Display) {
        let mut state = self.state();
        state.errors += 1;
        let text = error.to_string();
        if state.last_error.as_deref() != Some(&text) {
            tracing::debug!(endpoint = %self.endpoint.name(), error = text, "metrics cannot be read");
            state.last_error = Some(text);
        }
    }

    /// Changes the health; whether that changed who is routable, and why it is out now.
    pub(super) fn update_health(&self, change: impl FnOnce(&mut Health) -> bool) -> (bool, Option<Ejection>) {
        let mut state = self.state();
        let changed = change(&mut state.health);
        (changed, state.health.ejection(Instant::now()))
    }
}

/// The members by name.
pub(super) struct Table {
    by_name: BTreeMap<EndpointName, Arc<Member>>,
}

/// Both views of the members at one moment.
pub(super) struct Views {
    pub(super) all: Arc<Snapshot>,
    /// Without the ejected, as long as others have their role; the same object as `all` when that changes nothing.
    pub(super) routable: Arc<Snapshot>,
    /// Endpoints about which a good answer would be news.
    pub(super) blemished: usize,
}

impl Table {
    /// Values older than `fresh_for` fade; `None` keeps them as they are.
    pub(super) fn views(&self, version: u64, now: Instant, fresh_for: Option<Duration>) -> Views {
        let snapshot = |members| {
            let snapshot = Snapshot::new(version, members);
            match fresh_for {
                Some(fresh_for) => snapshot.faded(now, fresh_for),
                None => snapshot,
            }
        };
        let mut all = Vec::with_capacity(self.by_name.len());
        let mut routable = Vec::new();
        let mut ejected = Vec::new();
        let mut trials = Vec::new();
        let mut blemished = 0;
        for member in self.by_name.values() {
            let mut state = member.state();
            let entry = (Arc::clone(&member.endpoint), Arc::clone(&state.record));
            if state.health.is_ejected(now) {
                ejected.push(all.len());
            } else {
                let slot = member.endpoint.slot();
                let trial = state.health.trial(now, slot.dispatched());
                trials.extend(trial.map(|limit| (slot.id(), limit)));
                routable.push(all.len());
            }
            blemished += usize::from(!state.health.is_spotless());
            all.push(entry);
        }
        if !ejected.is_empty() {
            // Nobody left of a role: better a bad endpoint than none.
            let role = |index: &usize| all[*index].0.label(ROLE_LABEL);
            let served: HashSet<Option<&str>> = routable.iter().map(role).collect();
            ejected.retain(|index| !served.contains(&role(index)));
            routable.append(&mut ejected);
            routable.sort_unstable();
        }
        let differs = routable.len() < all.len() || !trials.is_empty();
        let routable = differs.then(|| {
            let entries = routable.iter().map(|index| all[*index].clone());
            Arc::new(snapshot(entries.collect()).with_trials(trials))
        });
        let all = Arc::new(snapshot(all));
        Views {
            routable: routable.unwrap_or_else(|| Arc::clone(&all)),
            all,
            blemished,
        }
    }
}

/// The members, shared by discovery, collectors and the publisher.
pub(super) struct Members {
    table: Mutex<Table>,
    slots: Arc<SlotTable>,
}

impl Members {
    pub(super) fn new(slots: Arc<SlotTable>) -> Self {
        Self {
            table: Mutex::new(Table {
                by_name: BTreeMap::new(),
            }),
            slots,
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `publish` while nobody else can change the members.
    pub(super) fn with(&self, publish: impl FnOnce(&mut Table)) {
        publish(&mut self.table());
    }

    /// Takes over a new set and returns the members that need a collector. `publish` runs under the
    /// lock when the set differs; slots of gone endpoints are free after it.
    pub(super) fn replace(
        &self,
        specs: Vec<EndpointSpec>,
        sources: &[Source],
        stop: &CancellationToken,
        publish: impl FnOnce(&mut Table),
    ) -> Vec<Arc<Member>> {
        let mut table = self.table();
        let mut old = std::mem::take(&mut table.by_name);
        let mut started = Vec::new();
        for spec in specs {
            let known = old.remove(&spec.name);
            if let Some(member) = known.as_ref().filter(|member| *member.endpoint.spec() == spec) {
                table.by_name.insert(spec.name, Arc::clone(member));
                continue;
            }
            let endpoint = Endpoint::new(spec.clone(), self.slots.slot(&spec.name));
            let mut record = Arc::default();
            if let Some(member) = known {
                member.stop.cancel();
                if member.endpoint.socket_addr() == endpoint.socket_addr() {
                    record = member.record();
                }
            }
            let member = Arc::new(Member::new(
                Arc::new(endpoint),
                record,
                sources,
                stop.child_token(),
            ));
            table.by_name.insert(spec.name, Arc::clone(&member));
            started.push(member);
        }
        if !(started.is_empty() && old.is_empty()) {
            publish(&mut table);
        }
        for (name, member) in old {
            member.stop.cancel();
            self.slots.retire(&name);
        }
        started
    }

    /// Puts a new member in the place of each and returns them: they need a collector.
    pub(super) fn restart(&self, sources: &[Source], stop: &CancellationToken) -> Vec<Arc<Member>> {
        let mut table = self.table();
        for member in table.by_name.values_mut() {
            member.stop.cancel();
            *member = Arc::new(member.polled_by(sources, stop.child_token()));
        }
        table.by_name.values().cloned().collect()
    }

    /// The member of this name.
    pub(super) fn get(&self, name: &EndpointName) -> Option<Arc<Member>> {
        self.table().by_name.get(name).map(Arc::clone)
    }

    /// The first moment at which time alone changes who is routable.
    pub(super) fn next_change(&self) -> Option<Instant> {
        let table = self.table();
        table
            .by_name
            .values()
            .filter_map(|member| member.state().health.next_change())
            .min()
    }

    pub(super) fn status(&self, now: Instant) -> Vec<EndpointStatus> {
        let table = self.table();
        let line = |member: &Arc<Member>| {
            let state = member.state();
            EndpointStatus::new(
                &member.endpoint,
                &state.record,
                now,
                &super::status::Live {
                    engine_type: &member.engine_type,
                    ejection: state.health.ejection(now),
                    errors: state.errors,
                    last_error: state.last_error.as_deref(),
                },
            )
        };
        table.by_name.values().map(line).collect()
    }
}
