//! `core-metrics-extractor`: queue, batch, KV-cache and LoRA state from an engine's Prometheus page.
//!
//! | parameter | default |
//! |---|---|
//! | `engineLabelKey` | `llm-d.ai/engine-type`, then `inference.networking.k8s.io/engine-type` |
//! | `defaultEngine` | `vllm` |
//! | `engineConfigs[]` | the built-in engines; an entry of the same name replaces one |
//!
//! The endpoint's label names the engine; an unknown value or no label means the default engine.
//! Only the families of that engine are looked at, and nothing is allocated once the caller's
//! [`Scratch`] and record have grown: the page is walked line by line and a table on one byte
//! tells which lines can matter.

mod engine;
mod page;
mod spec;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use llmd_epp_api::registry::Component;
use llmd_epp_api::{BuildError, MetricsRecord, Plugin, PluginType, Stability};
use serde::Deserialize;

use super::reader::PageReader;
use engine::Engine;
pub use engine::{CustomMetric, EngineConfig, SpecFailure};
pub use page::{Scratch, series};
pub use spec::SpecError;

/// Type name in configurations.
pub const TYPE: &str = "core-metrics-extractor";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Beta,
    default_producer_of: &[],
    build: |context| {
        let built = CoreMetricsExtractor::new(&context.parameters()?)
            .map_err(|error| BuildError::Shape(error.to_string()))?;
        let reader = PageReader::Metrics(built);
        Ok(Plugin::component(Component::Extractor(Arc::new(reader))))
    },
};
/// Pod label that names the engine.
pub const ENGINE_LABEL: &str = "llm-d.ai/engine-type";
/// Older name of [`ENGINE_LABEL`].
pub const ENGINE_LABEL_DEPRECATED: &str = "inference.networking.k8s.io/engine-type";

const DEFAULT_ENGINE: &str = "vllm";
const RESERVED_NAME: &str = "default";

/// Parameters as written in the configuration.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Parameters {
    /// Label that names the engine.
    pub engine_label_key: Option<String>,
    /// Engine of endpoints without the label, or with an unknown value.
    pub default_engine: Option<String>,
    /// Engines in addition to, or in place of, the built-in ones.
    pub engine_configs: Vec<EngineConfig>,
}

/// Why the parameters were refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// An engine without a name.
    #[error("engineConfigs[{0}].name must not be empty")]
    EmptyName(usize),
    /// `default` selects the default engine and cannot be an engine itself.
    #[error("engineConfigs[{0}].name must not be 'default': the name is reserved, set defaultEngine instead")]
    ReservedName(usize),
    /// Two entries with one name.
    #[error("engineConfigs[{index}].name '{name}' is used twice")]
    DuplicateName {
        /// Position of the second entry.
        index: usize,
        /// The name.
        name: String,
    },
    /// A custom metric without a key, or a key used twice.
    #[error("engineConfigs[{index}].customMetrics: attributeKey '{key}' must be set and unique")]
    AttributeKey {
        /// Position of the engine.
        index: usize,
        /// The key as written.
        key: String,
    },
    /// A metric spec that does not parse.
    #[error("engineConfigs[{index}].{field}: {source}")]
    Spec {
        /// Position of the engine.
        index: usize,
        /// Field of the engine.
        field: &'static str,
        /// What is wrong with it.
        source: SpecError,
    },
    /// `defaultEngine` names nothing.
    #[error("defaultEngine '{name}' is not an engine; known engines: {known}")]
    UnknownDefault {
        /// The name as written.
        name: String,
        /// What exists.
        known: String,
    },
}

/// Index of an engine in one extractor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineId(usize);

/// What one page gave.
#[derive(Clone, Copy, Debug)]
pub struct Extracted<'a> {
    /// Whether at least one spec was read; only then `update_time` moved.
    pub updated: bool,
    /// Specs that could not be read.
    pub failures: u32,
    /// The first of them.
    pub first_failure: Option<SpecFailure<'a>>,
}

impl<'a> Extracted<'a> {
    /// Neither a value nor a failure.
    pub(super) fn nothing() -> Self {
        Self {
            updated: false,
            failures: 0,
            first_failure: None,
        }
    }

    /// Everything was read.
    pub(super) fn read() -> Self {
        Self {
            updated: true,
            ..Self::nothing()
        }
    }

    /// Nothing was read.
    pub(super) fn failed(failure: SpecFailure<'a>) -> Self {
        Self {
            failures: 1,
            first_failure: Some(failure),
            ..Self::nothing()
        }
    }
}

/// The extractor: compiled specs per engine.
#[derive(Debug)]
pub struct CoreMetricsExtractor {
    type_name: &'static str,
    label: Option<String>,
    engines: Vec<Engine>,
    default_engine: usize,
}

impl CoreMetricsExtractor {
    /// Validates and compiles the parameters.
    pub fn new(parameters: &Parameters) -> Result<Self, ParameterError> {
        let mut engines: Vec<Engine> = Vec::new();
        for (index, config) in parameters.engine_configs.iter().enumerate() {
            if config.name.is_empty() {
                return Err(ParameterError::EmptyName(index));
            }
            if config.name == RESERVED_NAME {
                return Err(ParameterError::ReservedName(index));
            }
            if engines.iter().any(|known| *known.name == *config.name) {
                let name = config.name.clone();
                return Err(ParameterError::DuplicateName { index, name });
            }
            engines.push(Engine::compile(index, config)?);
        }
        for (offset, config) in engine::built_in().iter().enumerate() {
            if !engines.iter().any(|known| *known.name == *config.name) {
                engines.push(Engine::compile(parameters.engine_configs.len() + offset, config)?);
            }
        }
        let wanted = parameters.default_engine.as_deref().unwrap_or(DEFAULT_ENGINE);
        let Some(default_engine) = engines.iter().position(|engine| *engine.name == *wanted) else {
            let known: Vec<&str> = engines.iter().map(|engine| &*engine.name).collect();
            return Err(ParameterError::UnknownDefault {
                name: wanted.to_owned(),
                known: known.join(", "),
            });
        };
        Ok(Self {
            type_name: TYPE,
            label: parameters.engine_label_key.clone().filter(|key| !key.is_empty()),
            engines,
            default_engine,
        })
    }

    /// The same under the name of another type.
    pub(super) fn named(self, type_name: &'static str) -> Self {
        Self { type_name, ..self }
    }

    /// The type it was configured as.
    pub fn type_name(&self) -> &'static str {
        self.type_name
    }

    /// The engine of an endpoint with these labels.
    pub fn engine_of(&self, labels: &BTreeMap<String, String>) -> EngineId {
        let value = match &self.label {
            Some(key) => labels.get(key),
            None => labels
                .get(ENGINE_LABEL)
                .or_else(|| labels.get(ENGINE_LABEL_DEPRECATED)),
        };
        let named = value.and_then(|name| self.engines.iter().position(|engine| *engine.name == **name));
        EngineId(named.unwrap_or(self.default_engine))
    }

    /// Name of an engine.
    pub fn engine_name(&self, engine: EngineId) -> &Arc<str> {
        &self.engines[engine.0].name
    }

    /// Reads one page into `record`. Fields whose spec fails keep their value; `update_time` becomes
    /// `now` when at least one spec was read.
    pub fn extract(
        &self,
        engine: EngineId,
        page: &[u8],
        now: Instant,
        scratch: &mut Scratch,
        record: &mut MetricsRecord,
    ) -> Extracted<'_> {
        let extracted = self.engines[engine.0].extract(page, scratch, record);
        if extracted.updated {
            record.update_time = Some(now);
        }
        extracted
    }
}

#[cfg(test)]
mod tests;
