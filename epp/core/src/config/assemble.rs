//! From a decoded document to running parts: instances, defaults, references, checks.

mod explanation;
mod instances;
mod order;
mod profiles;
mod references;
mod succession;

use std::collections::HashMap;
use std::sync::Arc;

use llmd_epp_api::attribute::PREFIX_CACHE_MATCH_INFO;
use llmd_epp_api::registry::{BuildState, Component, Need};
use llmd_epp_api::{AttributeKey, Clock, MetricsScope, Plugin, PrefixMatch, Timing, TypedName};

use super::explain::Explanation;
use super::{ConfigError, EndpointPickerConfig, Heritage, graph};
use crate::plugins::datalayer::file_discovery::FileDiscovery;
use crate::plugins::datalayer::polled::PolledSource;
use crate::plugins::datalayer::reader::PageReader;
use crate::registry;
use crate::scheduler::{Parts, Profile, Scheduler};
use instances::Instance;

const LOAD_ACCOUNT: &str = "inflight-load-producer";
const GATE_FLOW_CONTROL: &str = "flowControl";
const GATE_HA_DATASTORE: &str = "haPopulateNonLeaderDatastore";

/// What a configuration is built with.
#[derive(Clone)]
pub struct BuildEnv {
    /// Where metrics register.
    pub registry: prometheus::Registry,
    /// Also register the deprecated metric names.
    pub deprecated_metrics: bool,
    /// Seed of everything random: equal seeds and equal inputs give equal decisions.
    pub seed: u64,
    /// `--allow-experimental-plugins`.
    pub allow_experimental: bool,
    /// `--emit-endpoint-scores`: decisions keep all scores.
    pub retain_scores: bool,
    /// When decisions count.
    pub timing: Timing,
    /// Monotonic time for exported durations; without one the duration histograms stay empty.
    pub clock: Option<Arc<dyn Clock>>,
    /// The configuration that this one replaces while it runs; with it `registry` and
    /// `deprecated_metrics` stay what they were.
    pub predecessor: Option<Arc<Heritage>>,
}

impl BuildEnv {
    /// Upstream's defaults with an empty registry: what validation and tests need.
    pub fn detached() -> Self {
        Self {
            registry: prometheus::Registry::new(),
            deprecated_metrics: true,
            seed: 0,
            allow_experimental: false,
            retain_scores: false,
            timing: Timing::default(),
            clock: None,
            predecessor: None,
        }
    }
}

/// A configuration in running form.
#[derive(Debug)]
pub struct Assembly {
    /// Scheduling.
    pub scheduler: Scheduler,
    /// Where endpoints and their metrics come from.
    pub data_layer: DataLayerPlan,
    /// Body parsers in configuration order.
    pub parsers: Vec<ParserPlan>,
    /// One line per field or plugin that is deprecated or has no effect.
    pub warnings: Vec<String>,
    /// What the next configuration takes over.
    pub heritage: Arc<Heritage>,
    /// Names of the instances that were taken over from the configuration before.
    pub carried: Vec<Arc<str>>,
    /// What runs, in words.
    pub explanation: Explanation,
}

/// One body parser; the type says which format it reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParserPlan {
    /// Type and instance name.
    pub name: TypedName,
}

/// What the data layer runs.
#[derive(Clone, Debug, Default)]
pub struct DataLayerPlan {
    /// Polling sources in order.
    pub sources: Vec<SourcePlan>,
    /// Endpoint discovery in place of Kubernetes.
    pub discovery: Option<Arc<FileDiscovery>>,
}

impl DataLayerPlan {
    /// Whether both poll the same sources with the same extractors.
    pub fn is_polled_like(&self, other: &Self) -> bool {
        let is_same = |(one, other): (&SourcePlan, &SourcePlan)| {
            let mut extractors = one.extractors.iter().zip(&other.extractors);
            Arc::ptr_eq(&one.source, &other.source)
                && one.extractors.len() == other.extractors.len()
                && extractors.all(|((_, one), (_, other))| Arc::ptr_eq(one, other))
        };
        self.sources.len() == other.sources.len() && self.sources.iter().zip(&other.sources).all(is_same)
    }
}

/// One source and what reads it.
#[derive(Clone, Debug)]
pub struct SourcePlan {
    /// Type and instance name.
    pub name: TypedName,
    /// How to fetch.
    pub source: Arc<PolledSource>,
    /// What reads the page, in order.
    pub extractors: Vec<(TypedName, Arc<PageReader>)>,
}

/// Decodes and builds `text` without keeping anything, as an Endpoint Picker without `--allow-experimental-plugins` does.
pub fn validate(text: &str) -> Result<Vec<String>, ConfigError> {
    validate_for(text, false)
}

/// [`validate`], for an Endpoint Picker that may have `--allow-experimental-plugins`.
pub fn validate_for(text: &str, allow_experimental: bool) -> Result<Vec<String>, ConfigError> {
    let mut decoded = EndpointPickerConfig::decode(text)?;
    let env = BuildEnv {
        allow_experimental,
        ..BuildEnv::detached()
    };
    let assembly = assemble(&decoded.config, env)?;
    decoded.warnings.extend(assembly.warnings);
    Ok(decoded.warnings)
}

/// Builds a decoded configuration.
pub fn assemble(config: &EndpointPickerConfig, env: BuildEnv) -> Result<Assembly, ConfigError> {
    let mut builder = Builder::new(&env, config);
    builder.check_gates(config)?;
    builder.instantiate_all(&config.plugins)?;
    let written = builder.default_profiles(config)?;
    let handler = builder.profile_handler(written.len())?;
    let detector = builder.saturation_detector(config)?;
    let parsers = builder.parsers(config)?;
    let data_layer = builder.data_layer(config)?;
    builder.load_account()?;
    builder.default_producers()?;
    let profiles = written
        .iter()
        .map(|profile| builder.profile(profile))
        .collect::<Result<Vec<_>, _>>()?;
    builder.warn_about_policies();
    let heritage = Arc::new(builder.heritage());
    let producers = builder.producers()?;
    let explanation = builder.explain(
        config,
        &written,
        [handler, detector],
        &producers,
        &parsers,
        &data_layer,
    );
    let scheduler = builder.scheduler(profiles, handler, detector, producers, env)?;
    Ok(Assembly {
        scheduler,
        data_layer,
        parsers,
        warnings: builder.warnings,
        heritage,
        carried: builder.carried,
        explanation,
    })
}

struct Builder {
    instances: Vec<Instance>,
    by_name: HashMap<Arc<str>, usize>,
    state: BuildState,
    allow_experimental: bool,
    warnings: Vec<String>,
    predecessor: Option<Arc<Heritage>>,
    carried: Vec<Arc<str>>,
}

impl Builder {
    fn new(env: &BuildEnv, config: &EndpointPickerConfig) -> Self {
        let metrics = match &env.predecessor {
            Some(predecessor) => predecessor.metrics.clone(),
            None => MetricsScope::new(env.registry.clone(), env.deprecated_metrics),
        };
        let mut state = BuildState::new(metrics);
        state.timing = env.timing;
        if let Some(predecessor) = &env.predecessor {
            state.layout = predecessor.layout_for(config);
        }
        Self {
            instances: Vec::new(),
            by_name: HashMap::new(),
            state,
            allow_experimental: env.allow_experimental,
            warnings: Vec::new(),
            predecessor: env.predecessor.clone(),
            carried: Vec::new(),
        }
    }

    fn check_gates(&mut self, config: &EndpointPickerConfig) -> Result<(), ConfigError> {
        for gate in &config.feature_gates {
            let (name, value) = gate.split_once('=').unwrap_or((gate, "true"));
            let enabled = match value {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
                "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
                _ => {
                    return Err(ConfigError::GateValue {
                        name: name.to_owned(),
                        value: value.to_owned(),
                    });
                }
            };
            match name {
                GATE_FLOW_CONTROL if enabled => {
                    return Err(ConfigError::NotAvailable {
                        field: format!("feature gate '{GATE_FLOW_CONTROL}'"),
                        fix: "remove it or set flowControl=false",
                    });
                }
                GATE_FLOW_CONTROL => {}
                GATE_HA_DATASTORE => self.warnings.push(format!(
                    "feature gate '{GATE_HA_DATASTORE}' has no effect without leader election"
                )),
                _ => return Err(ConfigError::UnknownGate(name.to_owned())),
            }
        }
        if config.has_queue_settings() {
            self.warnings.push(
                "flowControl is ignored except saturationDetector, because the feature gate 'flowControl' is off"
                    .into(),
            );
        }
        Ok(())
    }

    /// Select-and-reserve always books load, so there is always exactly one account.
    fn load_account(&mut self) -> Result<(), ConfigError> {
        let accounts: Vec<usize> = self.indices(|plugin| plugin.reserve.is_some()).collect();
        let books_load = |index: &&usize| self.instances[**index].name.plugin_type == LOAD_ACCOUNT;
        let load: Vec<&usize> = accounts.iter().filter(books_load).collect();
        match load[..] {
            [] => self
                .find_or_make(LOAD_ACCOUNT, "select-and-reserve books load")
                .map(|_| ()),
            [_] => Ok(()),
            [first, second, ..] => Err(ConfigError::ManyReservers(
                self.instances[*first].name.name.to_string(),
                self.instances[*second].name.name.to_string(),
            )),
        }
    }

    /// Makes a default producer for each required attribute that nobody produces, until none is
    /// missing: the new ones may require others.
    fn default_producers(&mut self) -> Result<(), ConfigError> {
        loop {
            let declarations = &self.state.declarations;
            let missing = declarations.iter().find(|read| {
                let is_required = read.need == Some(Need::Required) || (read.need.is_some() && read.explicit);
                is_required
                    && !declarations
                        .iter()
                        .any(|write| write.need.is_none() && write.key == read.key)
            });
            let Some(missing) = missing.cloned() else {
                return Ok(());
            };
            let producer = registry::default_producer(missing.key.attribute)
                .filter(|name| !missing.explicit && !self.by_name.contains_key(*name));
            let Some(producer) = producer else {
                return Err(ConfigError::UnknownDependency {
                    producer: missing.key.producer.to_string(),
                    consumer: self.instances[missing.instance].name.name.to_string(),
                    attribute: missing.key.attribute,
                });
            };
            self.warn_about_other_producers(missing.key.attribute, producer);
            let consumer = &self.instances[missing.instance].name.name;
            let reason = format!("{consumer} needs {}", missing.key.attribute);
            self.find_or_make(producer, reason)?;
        }
    }

    fn warn_about_other_producers(&mut self, attribute: &str, default: &str) {
        let other = self
            .state
            .declarations
            .iter()
            .find(|write| write.need.is_none() && write.key.attribute == attribute);
        if let Some(other) = other {
            self.warnings.push(format!(
                "a second producer '{default}' of {attribute} is added: a plugin needs it and does not name '{}'",
                other.key.producer
            ));
        }
    }

    fn warn_about_policies(&mut self) {
        let inert = self
            .instances
            .iter()
            .filter(|instance| matches!(instance.plugin.component, Some(Component::FlowPolicy)));
        let lines: Vec<String> = inert
            .map(|instance| {
                format!(
                    "plugin '{}' has no effect while the feature gate 'flowControl' is off",
                    instance.name.name
                )
            })
            .collect();
        self.warnings.extend(lines);
    }

    fn indices(&self, wanted: impl Fn(&Plugin) -> bool) -> impl Iterator<Item = usize> {
        self.instances
            .iter()
            .enumerate()
            .filter_map(move |(index, instance)| wanted(&instance.plugin).then_some(index))
    }

    /// The instances that have `part`, in configuration order.
    fn each<P: ?Sized>(&self, part: impl Fn(&Plugin) -> Option<Arc<P>>) -> Vec<(TypedName, Arc<P>)> {
        self.instances
            .iter()
            .filter_map(|instance| Some((instance.name.clone(), part(&instance.plugin)?)))
            .collect()
    }

    /// What the conditional-decode gate reads.
    fn prefix_match_key(&mut self) -> Option<AttributeKey<PrefixMatch>> {
        let mut writes = self
            .state
            .declarations
            .iter()
            .filter(|write| write.need.is_none());
        let write = writes.find(|write| write.key.attribute == PREFIX_CACHE_MATCH_INFO)?;
        self.state.layout.resolve(write.key.clone()).ok()
    }

    /// The data producers in the order in which they run.
    fn producers(&self) -> Result<Vec<usize>, ConfigError> {
        let producers: Vec<usize> = self.indices(|plugin| plugin.producer.is_some()).collect();
        graph::order(&producers, &self.state.declarations).map_err(|cycle| {
            let names: Vec<&str> = cycle
                .iter()
                .map(|index| &*self.instances[*index].name.name)
                .collect();
            ConfigError::Cycle(names.join(", "))
        })
    }

    fn scheduler(
        &mut self,
        profiles: Vec<Profile>,
        handler: usize,
        detector: usize,
        producers: Vec<usize>,
        env: BuildEnv,
    ) -> Result<Scheduler, ConfigError> {
        let handler = self.expect("profile handler", handler, "a profile handler", |plugin| {
            plugin.profile_handler.clone()
        })?;
        let names: Vec<Arc<str>> = profiles.iter().map(|profile| profile.name().clone()).collect();
        handler.check(&names).map_err(ConfigError::Handler)?;
        let saturation = self.expect(
            "saturation detector",
            detector,
            "a saturation detector",
            |plugin| plugin.saturation.clone(),
        )?;
        let prefix_match = self.prefix_match_key();
        let layout = std::mem::take(&mut self.state.layout);
        let named = |index: usize| self.instances[index].name.clone();
        let parts = Parts {
            profiles,
            handler,
            saturation,
            header_processors: self.each(|plugin| plugin.header_processor.clone()),
            screeners: self.each(|plugin| plugin.screener.clone()),
            admitters: self.each(|plugin| plugin.admitter.clone()),
            states: self
                .instances
                .iter()
                .map(|i| (i.name.clone(), i.plugin.state.clone()))
                .collect(),
            producers: producers
                .into_iter()
                .filter_map(|index| Some((named(index), self.instances[index].plugin.producer.clone()?)))
                .collect(),
            gatherers: self
                .instances
                .iter()
                .filter_map(|i| i.plugin.gather.clone())
                .collect(),
            render: self.instances.iter().find_map(|i| i.plugin.render.clone()),
            reservers: self
                .instances
                .iter()
                .filter_map(|i| i.plugin.reserve.clone())
                .collect(),
            pre_requests: self.each(|plugin| plugin.pre_request.clone()),
            observers: self
                .instances
                .iter()
                .filter_map(|i| i.plugin.observer.clone())
                .collect(),
            prefix_match,
            attributes: layout,
        };
        Ok(Scheduler::new(parts, &self.state.metrics, env)?)
    }
}
