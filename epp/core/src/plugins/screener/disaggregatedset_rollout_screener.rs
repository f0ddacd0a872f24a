//! `disaggregatedset-rollout-screener`: keeps a request on one revision of a rollout of several roles.
//!
//! | parameter | default |
//! |---|---|
//! | `scope.labelSelector` | required; which pods count |
//! | `headerSelectors[]` {`name`, `headerName`, `labelKey`, `mode` `strict`, `prefer`} | none |
//! | `revisionGating.mode` | required: `sum`, `max-role`, `disabled` |
//! | `revisionGating.requireRoles.values[]` | required unless disabled |
//! | `revisionGating.revisionLabelKey`, `.roleLabelKey` | `disaggregatedset.x-k8s.io/revision`, `…/role` |
//!
//! ```text
//!  pods of the pool ─▶ Shares (kept until an endpoint changes) ─▶ a request draws a revision ─▶ only its endpoints stay
//!  a strict header names a value ─▶ only endpoints with it stay; one for the revision is taken in place of a draw
//! ```
//!
//! A revision without a ready pod of each required role gets nothing; when none is complete, or a strict header matches
//! nothing, the answer is 503. Each selector's header tells the client the value of the endpoint that was chosen. Pods
//! outside of the pool are not seen: where prefill and decode have pickers of their own, the mode has to be `disabled`.

mod metrics;
mod parameters;
mod selector;
mod shares;

use std::sync::{Arc, Mutex, PoisonError};

use llmd_epp_api::plugin::{PreRequest, SchedulingResult, Screener};
use llmd_epp_api::{
    BuildContext, BuildError, Cycle, Endpoint, Plugin, PluginType, Random, Rejection, RequestChanges,
    ResponseHead, ResponseHook, Snapshot, Stability, TypedName,
};

use metrics::Families;
use parameters::{HeaderSelector, Parameters};
use selector::Selector;
use shares::{Gate, Shares, Weight};

/// Type name in configurations.
pub const TYPE: &str = "disaggregatedset-rollout-screener";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Alpha,
    default_producer_of: &[],
    build: |context| {
        let screener = Arc::new(RolloutScreener::new(context)?);
        Ok(Plugin {
            screener: Some(screener.clone()),
            pre_request: Some(screener),
            ..Plugin::default()
        })
    },
};

/// Shares of the endpoints that were there when a request came last.
#[derive(Default)]
struct Seen {
    endpoints: Vec<Arc<Endpoint>>,
    shares: Arc<Shares>,
}

struct RolloutScreener {
    name: TypedName,
    scope: Selector,
    selectors: Vec<HeaderSelector>,
    gate: Option<Gate>,
    families: Arc<Families>,
    seen: Mutex<Seen>,
}

impl RolloutScreener {
    fn new(context: &mut BuildContext<'_>) -> Result<Self, BuildError> {
        let checked = context.parameters::<Parameters>()?.check()?;
        Ok(Self {
            name: context.name.clone(),
            scope: checked.scope,
            selectors: checked.selectors,
            gate: checked.gate,
            families: context.metrics(Families::register)?,
            seen: Mutex::default(),
        })
    }

    /// The shares of this pool; labels belong to an endpoint, so they change only with the endpoints.
    fn shares(&self, gate: &Gate, snapshot: &Snapshot) -> Arc<Shares> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pairs = seen.endpoints.iter().zip(&snapshot.endpoints);
        let is_same = seen.endpoints.len() == snapshot.len() && pairs.all(|(old, new)| Arc::ptr_eq(old, new));
        if !is_same {
            let shares = Arc::new(Shares::new(gate, &self.scope, snapshot));
            let mode = match gate.weight {
                Weight::Sum => "sum",
                Weight::MaxRole => "max-role",
            };
            self.families
                .show(&self.name, mode, &seen.shares.revisions, &shares.revisions);
            *seen = Seen {
                endpoints: snapshot.endpoints.clone(),
                shares,
            };
        }
        Arc::clone(&seen.shares)
    }

    /// Applies the strict selectors; returns the revision that a header asks for.
    fn select<'a>(&self, cycle: &Cycle<'a>, candidates: &[u32], kept: &mut [bool]) -> Option<&'a str> {
        let mut revision = None;
        for selector in self.selectors.iter().filter(|selector| selector.is_strict()) {
            let wanted = cycle.request.headers.get(&selector.header_name);
            let Some(wanted) = wanted.filter(|wanted| !wanted.is_empty()) else {
                continue;
            };
            let mut is_matched = false;
            for (candidate, kept) in candidates.iter().zip(kept.iter_mut()) {
                let endpoint = &cycle.snapshot.endpoints[*candidate as usize];
                let is_match = endpoint.label(&selector.label_key) == Some(wanted);
                is_matched |= is_match;
                *kept &= is_match;
            }
            if !is_matched {
                self.families.no_match(&self.name, &selector.name);
            }
            let key = self.gate.as_ref().map(|gate| &gate.revision_key);
            if key == Some(&selector.label_key) {
                revision = Some(wanted);
            }
        }
        revision
    }
}

impl Screener for RolloutScreener {
    fn screen(&self, cycle: &Cycle<'_>, candidates: &[u32], random: &Random, kept: &mut [bool]) {
        let named = self.select(cycle, candidates, kept);
        let Some(gate) = &self.gate else {
            return;
        };
        let shares = self.shares(gate, cycle.snapshot);
        let revision = match named {
            Some(name) => shares.complete(name),
            None => shares.draw(candidates, random.unit()),
        };
        for (candidate, kept) in candidates.iter().zip(kept) {
            *kept &= revision.is_some_and(|revision| shares.is_of(*candidate, revision));
        }
    }
}

impl PreRequest for RolloutScreener {
    fn pre_request(
        &self,
        cycle: &Cycle<'_>,
        result: SchedulingResult<'_>,
        changes: &mut RequestChanges,
    ) -> Result<(), Rejection> {
        let target = result.target();
        let Some(endpoint) = target.map(|index| &cycle.snapshot.endpoints[index as usize]) else {
            return Ok(());
        };
        let stamps = self.selectors.iter().filter_map(|selector| {
            let value = endpoint.label(&selector.label_key)?;
            (!value.is_empty()).then(|| (selector.header_name.as_str().into(), value.to_owned()))
        });
        let stamps: Vec<_> = stamps.collect();
        if !stamps.is_empty() {
            changes.hooks.push(Box::new(Stamp(stamps)));
        }
        Ok(())
    }
}

/// Tells the client where it was served, for the next request of the same work.
#[derive(Debug)]
struct Stamp(Vec<(Arc<str>, String)>);

impl ResponseHook for Stamp {
    fn on_headers(&mut self, _: &ResponseHead<'_>, set: &mut Vec<(Arc<str>, String)>) {
        set.append(&mut self.0);
    }
}

#[cfg(test)]
mod tests;
