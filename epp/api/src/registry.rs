//! How a plugin type is registered and how an instance is built from its parameters.

use std::any::{Any, TypeId};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use serde::de::DeserializeOwned;

use crate::attribute::{AttributeKey, AttributeLayout, DataKey, TypeMismatch};
use crate::plugin::{
    Admitter, DataProducer, Decider, EndpointObserver, Filter, Gather, Picker, PreRequest, ProfileHandler,
    RequestHeaderProcessor, Reserve, SaturationDetector, Scorer, Screener, StateDumper, TypedName,
};
use crate::render::RenderBackend;

/// How settled a plugin type is (upstream's levels).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stability {
    /// May change or go; needs `--allow-experimental-plugins`.
    Alpha,
    /// Settled enough for production.
    Beta,
    /// Still works; the fields say since when and until when.
    Deprecated {
        /// First release that warns.
        since: &'static str,
        /// Release that removes it.
        removed_in: &'static str,
    },
}

/// One line of the registry table.
#[derive(Clone, Copy, Debug)]
pub struct PluginType {
    /// Name in configurations.
    pub name: &'static str,
    /// Stability level.
    pub stability: Stability,
    /// Attributes for which an instance of this type is made when a configuration requires the
    /// attribute and declares no producer of it.
    pub default_producer_of: &'static [&'static str],
    /// Builds an instance.
    pub build: fn(&mut BuildContext<'_>) -> Result<Plugin, BuildError>,
}

/// What an instance can do: one plugin may serve several extension points.
#[derive(Clone, Default)]
pub struct Plugin {
    /// Removes candidates.
    pub filter: Option<Arc<dyn Filter>>,
    /// Rates candidates.
    pub scorer: Option<Arc<dyn Scorer>>,
    /// Chooses.
    pub picker: Option<Arc<dyn Picker>>,
    /// Runs profiles.
    pub profile_handler: Option<Arc<dyn ProfileHandler>>,
    /// Computes attributes.
    pub producer: Option<Arc<dyn DataProducer>>,
    /// Books load at pick time.
    pub reserve: Option<Arc<dyn Reserve>>,
    /// Reacts to a decision.
    pub pre_request: Option<Arc<dyn PreRequest>>,
    /// Looks at the headers of a request.
    pub header_processor: Option<Arc<dyn RequestHeaderProcessor>>,
    /// Takes endpoints out for all profiles.
    pub screener: Option<Arc<dyn Screener>>,
    /// Lets requests wait for each other.
    pub gather: Option<Arc<dyn Gather>>,
    /// Refuses requests.
    pub admitter: Option<Arc<dyn Admitter>>,
    /// Says whether a stage runs.
    pub decider: Option<Arc<dyn Decider>>,
    /// Shows what it holds.
    pub state: Option<Arc<dyn StateDumper>>,
    /// An engine that is asked for the tokens of prompts.
    pub render: Option<Arc<RenderBackend>>,
    /// Measures saturation.
    pub saturation: Option<Arc<dyn SaturationDetector>>,
    /// Follows the pool's members.
    pub observer: Option<Arc<dyn EndpointObserver>>,
    /// What the shells run: parsers, sources, extractors, discovery, inert policies.
    pub component: Option<Component>,
}

/// A plugin that is not part of a scheduling cycle.
#[derive(Clone)]
pub enum Component {
    /// Reads request and response bodies; the plugin type says which format.
    Parser,
    /// Polls endpoints; the value is the type's own validated parameters.
    DataSource(Arc<dyn Any + Send + Sync>),
    /// Reads what a source fetched; the value is the type's own extractor.
    Extractor(Arc<dyn Any + Send + Sync>),
    /// Finds endpoints; the value is the type's own validated parameters.
    Discovery(Arc<dyn Any + Send + Sync>),
    /// A flow-control policy; has no effect while the gate is off.
    FlowPolicy,
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.extension_points()).finish()
    }
}

impl Plugin {
    /// Where this plugin takes part: upstream's names of extension points, as metrics carry them, and
    /// for what has none a name of the same kind.
    pub fn extension_points(&self) -> Vec<&'static str> {
        let component = match &self.component {
            None => None,
            Some(Component::Parser) => Some("Parser"),
            Some(Component::DataSource(_)) => Some("DataSource"),
            Some(Component::Extractor(_)) => Some("Extractor"),
            Some(Component::Discovery(_)) => Some("EndpointDiscovery"),
            Some(Component::FlowPolicy) => Some("FlowControlPolicy"),
        };
        let points = [
            ("RequestHeaderProcessor", self.header_processor.is_some()),
            ("Screener", self.screener.is_some()),
            ("Render", self.render.is_some()),
            ("DataProducer", self.producer.is_some()),
            ("Gather", self.gather.is_some()),
            ("Admitter", self.admitter.is_some()),
            ("ProfileHandler", self.profile_handler.is_some()),
            ("Decider", self.decider.is_some()),
            ("Filter", self.filter.is_some()),
            ("Scorer", self.scorer.is_some()),
            ("Picker", self.picker.is_some()),
            ("Reserve", self.reserve.is_some()),
            ("PreRequest", self.pre_request.is_some()),
            ("SaturationDetector", self.saturation.is_some()),
            ("EndpointObserver", self.observer.is_some()),
            ("StateDumper", self.state.is_some()),
        ];
        let points = points.into_iter().filter(|(_, takes_part)| *takes_part);
        points.map(|(name, _)| name).chain(component).collect()
    }

    /// A plugin that filters.
    pub fn filter(filter: impl Filter + 'static) -> Self {
        Self {
            filter: Some(Arc::new(filter)),
            ..Self::default()
        }
    }

    /// A plugin that scores.
    pub fn scorer(scorer: impl Scorer + 'static) -> Self {
        Self {
            scorer: Some(Arc::new(scorer)),
            ..Self::default()
        }
    }

    /// A plugin that picks.
    pub fn picker(picker: impl Picker + 'static) -> Self {
        Self {
            picker: Some(Arc::new(picker)),
            ..Self::default()
        }
    }

    /// A plugin that the shells run.
    pub fn component(component: Component) -> Self {
        Self {
            component: Some(component),
            ..Self::default()
        }
    }
}

/// Why an instance could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Parameters of the wrong shape: an unknown field, a wrong type.
    #[error("parameters: {0}")]
    Shape(String),
    /// A parameter of the right type with a value that makes no sense.
    #[error("parameters.{field}: {reason}")]
    Value {
        /// Path of the parameter.
        field: String,
        /// What is wrong and what is allowed.
        reason: String,
    },
    /// One attribute key with two types.
    #[error(transparent)]
    Data(#[from] TypeMismatch),
    /// A metric could not be registered.
    #[error("metric: {0}")]
    Metric(#[from] prometheus::Error),
    /// Another instance has to be built first; never shown.
    #[error("needs plugin '{0}'")]
    Needs(Arc<str>),
    /// A parameter names an instance that does not exist.
    #[error("parameters.{field}: plugin '{name}' is not configured")]
    UnknownInstance {
        /// Path of the parameter.
        field: String,
        /// The name.
        name: String,
    },
    /// A parameter names an instance that cannot do what is asked of it.
    #[error("parameters.{field}: plugin '{name}' is not {wanted}")]
    WrongInstance {
        /// Path of the parameter.
        field: String,
        /// The name.
        name: String,
        /// What it should be.
        wanted: &'static str,
    },
}

impl BuildError {
    /// A wrong value of `field`.
    pub fn value(field: &str, reason: impl Into<String>) -> Self {
        Self::Value {
            field: field.to_owned(),
            reason: reason.into(),
        }
    }
}

/// Whether a consumer works without the attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// A default producer is made when there is none.
    Required,
    /// The consumer copes with its absence.
    Optional,
}

/// A declared read or write of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declaration {
    /// Index of the declaring instance.
    pub instance: usize,
    /// The attribute.
    pub key: DataKey,
    /// `None` for a write.
    pub need: Option<Need>,
    /// The consumer named the producer itself.
    pub explicit: bool,
}

/// Where metric structs register themselves. Clones share what is registered, so that the plugins
/// of a configuration that replaces another one go on with the series of the first.
#[derive(Clone)]
pub struct MetricsScope {
    /// The process's registry.
    pub registry: prometheus::Registry,
    /// Also register the deprecated names.
    pub deprecated_twins: bool,
    registered: Arc<Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>>,
}

impl MetricsScope {
    /// Nothing is registered yet.
    pub fn new(registry: prometheus::Registry, deprecated_twins: bool) -> Self {
        Self {
            registry,
            deprecated_twins,
            registered: Arc::default(),
        }
    }

    /// The metric struct `M` of this process, registered on first use.
    pub fn of<M: Any + Send + Sync>(
        &self,
        register: impl FnOnce(&Self) -> Result<M, prometheus::Error>,
    ) -> Result<Arc<M>, prometheus::Error> {
        let mut registered = self.registered.lock().unwrap_or_else(PoisonError::into_inner);
        let known = registered.get(&TypeId::of::<M>()).cloned();
        if let Some(metrics) = known.and_then(|known| known.downcast::<M>().ok()) {
            return Ok(metrics);
        }
        let metrics = Arc::new(register(self)?);
        registered.insert(TypeId::of::<M>(), metrics.clone());
        Ok(metrics)
    }
}

/// When a decision counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Timing {
    /// Load counts from the pick on, and a cached prefix from the first byte of an answer on: a burst
    /// spreads.
    #[default]
    Live,
    /// As upstream: load counts when it is scraped, and a prefix from the pick on.
    Upstream,
}

/// State shared by all instances of one configuration while they are built.
pub struct BuildState {
    /// All attributes so far.
    pub layout: AttributeLayout,
    /// All declarations so far.
    pub declarations: Vec<Declaration>,
    /// One line per deprecated or ineffective parameter.
    pub warnings: Vec<String>,
    /// Metrics.
    pub metrics: MetricsScope,
    /// When decisions count.
    pub timing: Timing,
    /// Instances that are built, by name.
    pub instances: HashMap<Arc<str>, Plugin>,
    /// The instance that is being built holds others, which may be replaced without it.
    pub is_bound: bool,
    /// Names of instances that the configuration declares.
    pub declared: HashSet<Arc<str>>,
}

impl BuildState {
    /// Nothing built yet.
    pub fn new(metrics: MetricsScope) -> Self {
        Self {
            layout: AttributeLayout::default(),
            declarations: Vec::new(),
            warnings: Vec::new(),
            metrics,
            timing: Timing::default(),
            instances: HashMap::new(),
            is_bound: false,
            declared: HashSet::new(),
        }
    }
}

/// What a builder function gets.
pub struct BuildContext<'a> {
    /// Type and name of the instance.
    pub name: &'a TypedName,
    /// Index of the instance.
    pub instance: usize,
    /// Parameters as written; null when there are none.
    pub parameters: &'a serde_json::Value,
    /// State shared with the other instances.
    pub state: &'a mut BuildState,
    /// Maps an attribute to the type whose default instance produces it.
    pub default_producer: &'a dyn Fn(&str) -> Option<&'static str>,
}

impl BuildContext<'_> {
    /// Decodes the parameters strictly; `P` denies unknown fields.
    pub fn parameters<P: DeserializeOwned + Default>(&self) -> Result<P, BuildError> {
        if self.parameters.is_null() {
            return Ok(P::default());
        }
        serde_path_to_error::deserialize(self.parameters).map_err(|error| {
            let path = error.path().to_string();
            let inner = error.into_inner();
            BuildError::Shape(if path == "." {
                inner.to_string()
            } else {
                format!("{path}: {inner}")
            })
        })
    }

    /// Refuses any parameter.
    pub fn no_parameters(&self) -> Result<(), BuildError> {
        #[derive(Default, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Nothing {}
        self.parameters::<Nothing>().map(|Nothing {}| ())
    }

    /// Notes that `field` was set although nothing reads it any more.
    pub fn warn_without_effect(&mut self, field: &str) {
        self.state.warnings.push(format!(
            "plugin '{}': parameters.{field} is deprecated and has no effect",
            self.name.name
        ));
    }

    /// Notes that `field` was set and that `replacement` is its name now.
    pub fn warn_renamed(&mut self, field: &str, replacement: &str) {
        self.state.warnings.push(format!(
            "plugin '{}': parameters.{field} is deprecated; use {replacement}",
            self.name.name
        ));
    }

    /// Declares that this instance writes `attribute`.
    pub fn produces<T: Any + Send + Default>(
        &mut self,
        attribute: &'static str,
    ) -> Result<AttributeKey<T>, BuildError> {
        let key = DataKey {
            attribute,
            producer: self.name.name.clone(),
        };
        self.declare(key, None, false)
    }

    /// Declares that this instance writes `attribute` in the name of its type: readers find it whatever
    /// the instance is called.
    pub fn produces_for_all<T: Any + Send + Default>(
        &mut self,
        attribute: &'static str,
    ) -> Result<AttributeKey<T>, BuildError> {
        let key = DataKey {
            attribute,
            producer: self.name.plugin_type.into(),
        };
        self.declare(key, None, false)
    }

    /// Declares that this instance reads `attribute` of the named producer, or of the default
    /// producer (whose instance is named like its type).
    pub fn consumes<T: Any + Send + Default>(
        &mut self,
        attribute: &'static str,
        producer: Option<&str>,
        need: Need,
    ) -> Result<AttributeKey<T>, BuildError> {
        let named = producer.filter(|name| !name.is_empty());
        let producer = named
            .or_else(|| (self.default_producer)(attribute))
            .unwrap_or_default();
        let key = DataKey {
            attribute,
            producer: producer.into(),
        };
        self.declare(key, Some(need), named.is_some())
    }

    /// The decider that `field` names. Instances that name others are built after them.
    pub fn decider(&mut self, field: &str, name: &str) -> Result<Arc<dyn Decider>, BuildError> {
        self.state.is_bound = true;
        let decider = self.instance(field, name)?.decider.clone();
        decider.ok_or_else(|| BuildError::WrongInstance {
            field: field.to_owned(),
            name: name.to_owned(),
            wanted: "a decider",
        })
    }

    fn instance(&self, field: &str, name: &str) -> Result<&Plugin, BuildError> {
        if let Some(plugin) = self.state.instances.get(name) {
            return Ok(plugin);
        }
        if self.state.declared.contains(name) {
            return Err(BuildError::Needs(name.into()));
        }
        Err(BuildError::UnknownInstance {
            field: field.to_owned(),
            name: name.to_owned(),
        })
    }

    fn declare<T: Any + Send + Default>(
        &mut self,
        key: DataKey,
        need: Option<Need>,
        explicit: bool,
    ) -> Result<AttributeKey<T>, BuildError> {
        let resolved = self.state.layout.resolve(key.clone())?;
        self.state.declarations.push(Declaration {
            instance: self.instance,
            key,
            need,
            explicit,
        });
        Ok(resolved)
    }

    /// The metric struct `M` of this process, registered on first use: instances of one type share
    /// it and differ by label.
    pub fn metrics<M: Any + Send + Sync>(
        &mut self,
        register: impl FnOnce(&MetricsScope) -> Result<M, prometheus::Error>,
    ) -> Result<Arc<M>, BuildError> {
        Ok(self.state.metrics.of(register)?)
    }
}
