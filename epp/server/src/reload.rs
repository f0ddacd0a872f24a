//! Another configuration for a running picker: built completely, then swapped in, or refused.
//!
//! ```text
//!  --config-file changes ─▶ decode ─▶ assemble on the running one's heritage ─▶ sources, parsers
//!                              └─────────── any error: log, count, keep ──────────────┘ │ all built
//!                                                         scheduler, parsers, sources ◀─┘ swapped
//! ```
//!
//! Requests that are open go on with the configuration they came in with, and give load back where it
//! was booked; instances that stay the same keep what they learned ([`Heritage`]).

mod follow;
mod metrics;

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use llmd_epp_api::Snapshot;
use llmd_epp_core::config::{Assembly, DataLayerPlan, Heritage};
use llmd_epp_core::parsers::{Parsers, UnknownParser};
use llmd_epp_core::{BuildEnv, ConfigError, EndpointPickerConfig, Epp, Scheduler, assemble};

use crate::datalayer::{self, DataLayer, SourceError};
use crate::health::Health;
pub use follow::{ConfigFileError, follow, read};
pub use metrics::ReloadMetrics;

/// Why a configuration is not taken over.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] ConfigFileError),
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A parser that this build does not have.
    #[error(transparent)]
    Parser(#[from] UnknownParser),
    /// The TLS files of a metrics source are wrong.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Something that is set up once.
    #[error("{0} cannot change while the picker runs: restart it")]
    Fixed(&'static str),
}

/// The scheduler of the running configuration, for whoever tells it about endpoints.
#[derive(Clone, Debug)]
pub struct CurrentScheduler(Arc<ArcSwap<Scheduler>>);

impl CurrentScheduler {
    /// Starts with `scheduler`.
    pub fn new(scheduler: Arc<Scheduler>) -> Self {
        Self(Arc::new(ArcSwap::new(scheduler)))
    }

    /// The pool has other members.
    pub fn endpoints_changed(&self, snapshot: &Snapshot) {
        self.0.load().endpoints_changed(snapshot);
    }
}

/// The application protocol that the pool was last said to have.
#[derive(Clone, Debug)]
pub struct PoolProtocol(Arc<Mutex<String>>);

impl PoolProtocol {
    /// Until somebody asks for another one.
    pub fn new(protocol: &str) -> Self {
        Self(Arc::new(Mutex::new(protocol.to_owned())))
    }

    /// The pool has this one now.
    pub fn set(&self, protocol: &str) {
        protocol.clone_into(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// What the pool has.
    pub(crate) fn get(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a configuration is swapped into.
pub struct Targets {
    /// Where requests are decided.
    pub epp: Arc<Epp>,
    /// Who is told about endpoints.
    pub scheduler: CurrentScheduler,
    /// The data layer.
    pub layer: DataLayer,
    /// Readiness depends on the parsers.
    pub health: Health,
    /// The pool's protocol.
    pub protocol: PoolProtocol,
}

/// The running configuration.
pub struct Running {
    /// As decoded.
    pub config: EndpointPickerConfig,
    /// Its data layer.
    pub data_layer: DataLayerPlan,
    /// What the next one takes over.
    pub heritage: Arc<Heritage>,
}

/// What was taken over.
#[derive(Debug, PartialEq, Eq)]
pub struct Reloaded {
    /// One line per difference; empty when both mean the same and nothing was done.
    pub differences: Vec<String>,
    /// One line per deprecated or ineffective setting.
    pub warnings: Vec<String>,
    /// Instances that went on with what they had learned.
    pub carried: usize,
}

/// Swaps configurations.
pub struct Reloader {
    targets: Targets,
    running: Running,
    env: BuildEnv,
    metrics: ReloadMetrics,
}

impl Reloader {
    /// `env` as the running configuration was built with.
    pub fn new(targets: Targets, running: Running, env: BuildEnv, metrics: ReloadMetrics) -> Self {
        Self {
            targets,
            running,
            env,
            metrics,
        }
    }

    /// Takes `text` over, or says why not; then nothing has changed.
    pub fn reload(&mut self, text: &str) -> Result<Reloaded, ReloadError> {
        let outcome = self.replace(text);
        match &outcome {
            Ok(reloaded) => self.metrics.succeeded(!reloaded.differences.is_empty()),
            Err(_) => self.metrics.failed(),
        }
        outcome
    }

    /// The file is not there, or not readable: counted like a wrong one.
    fn unreadable(&self, error: ConfigFileError) -> Result<Reloaded, ReloadError> {
        self.metrics.failed();
        Err(error.into())
    }

    fn replace(&mut self, text: &str) -> Result<Reloaded, ReloadError> {
        let mut decoded = EndpointPickerConfig::decode(text)?;
        let differences = self.running.config.differences(&decoded.config);
        if differences.is_empty() {
            return Ok(Reloaded {
                differences,
                warnings: Vec::new(),
                carried: 0,
            });
        }
        let env = BuildEnv {
            predecessor: Some(Arc::clone(&self.running.heritage)),
            ..self.env.clone()
        };
        let Assembly {
            scheduler,
            data_layer,
            parsers,
            warnings,
            heritage,
            carried,
            ..
        } = assemble(&decoded.config, env)?;
        let parsers = Parsers::from_types(parsers.iter().map(|plan| plan.name.plugin_type))?;
        if data_layer.discovery != self.running.data_layer.discovery {
            return Err(ReloadError::Fixed("dataLayer.discovery"));
        }
        let sources = if data_layer.is_polled_like(&self.running.data_layer) {
            None
        } else {
            Some(datalayer::sources(&data_layer)?)
        };
        // Nothing fails from here on.
        self.swap(Arc::new(scheduler), parsers, sources);
        self.running = Running {
            config: decoded.config,
            data_layer,
            heritage,
        };
        decoded.warnings.extend(warnings);
        Ok(Reloaded {
            differences,
            warnings: decoded.warnings,
            carried: carried.len(),
        })
    }

    fn swap(&self, scheduler: Arc<Scheduler>, parsers: Parsers, sources: Option<Vec<datalayer::Source>>) {
        let Targets {
            epp,
            scheduler: current,
            layer,
            health,
            protocol,
        } = &self.targets;
        health.set_protocol_supported(parsers.support(&protocol.get()));
        current.0.store(Arc::clone(&scheduler));
        // After the store: a change of members is told to the new one, by this line or by the layer.
        scheduler.endpoints_changed(&layer.snapshot());
        epp.set_pipeline(scheduler, parsers);
        if let Some(sources) = sources {
            layer.set_sources(sources);
        }
    }
}
