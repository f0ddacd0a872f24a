//! What the saturation detector, the parsers and the data layer refer to.

use std::sync::Arc;

use llmd_epp_api::registry::Component;
use llmd_epp_api::{Plugin, TypedName};

use super::{Builder, DataLayerPlan, ParserPlan, SourcePlan};
use crate::config::{ConfigError, EndpointPickerConfig, PluginRef, Source};
use crate::parsers::DEFAULT_TYPES;
use crate::plugins::datalayer::file_discovery::FileDiscovery;
use crate::plugins::datalayer::notification::Notification;
use crate::plugins::datalayer::polled::PolledSource;
use crate::plugins::datalayer::reader::PageReader;
use crate::plugins::datalayer::topology_extractor;

const DEFAULT_DETECTOR: &str = "utilization-detector";
const DEFAULT_SOURCE: &str = "metrics-data-source";
const DEFAULT_EXTRACTOR: &str = "core-metrics-extractor";
const REASON: &str = "dataLayer.injectDefaults";

impl Builder {
    pub(super) fn saturation_detector(
        &mut self,
        config: &EndpointPickerConfig,
    ) -> Result<usize, ConfigError> {
        let field = "saturation detector";
        let default = self.find_or_make(DEFAULT_DETECTOR, "there is always one")?;
        let index = match config.saturation_detector() {
            None | Some("") => default,
            Some(name) => self.resolve(field, name)?,
        };
        self.expect(field, index, "a saturation detector", |plugin| {
            plugin.saturation.clone().map(|_| ())
        })?;
        Ok(index)
    }

    pub(super) fn parsers(&mut self, config: &EndpointPickerConfig) -> Result<Vec<ParserPlan>, ConfigError> {
        let configured = &config.request_handler.parsers;
        for default in DEFAULT_TYPES {
            if configured.is_empty() || configured.iter().any(|parser| parser.plugin_ref == default) {
                self.find_or_make(default, "a default parser")?;
            }
        }
        let references: Vec<&str> = if configured.is_empty() {
            DEFAULT_TYPES.to_vec()
        } else {
            configured
                .iter()
                .map(|parser| parser.plugin_ref.as_str())
                .collect()
        };
        let mut plans = Vec::with_capacity(references.len());
        for name in references {
            let index = self.resolve("parser", name)?;
            self.expect("parser", index, "a parser", |plugin| match &plugin.component {
                Some(Component::Parser) => Some(()),
                _ => None,
            })?;
            plans.push(ParserPlan {
                name: self.instances[index].name.clone(),
            });
        }
        Ok(plans)
    }

    pub(super) fn data_layer(&mut self, config: &EndpointPickerConfig) -> Result<DataLayerPlan, ConfigError> {
        let data_layer = &config.data_layer;
        let unavailable = |field: &str| ConfigError::NotAvailable {
            field: field.to_owned(),
            fix: "remove the field",
        };
        if data_layer.peer_discovery.is_some() {
            return Err(unavailable("dataLayer.peerDiscovery"));
        }
        if data_layer.cross_replica_syncer_plugin_ref.is_some() {
            return Err(unavailable("dataLayer.crossReplicaSyncerPluginRef"));
        }
        if data_layer.cross_replica_sync_interval.is_some() {
            self.warnings
                .push("dataLayer.crossReplicaSyncInterval has no effect without a syncer".into());
        }
        let mut sources = data_layer.sources.clone();
        let lists_default = sources.iter().any(|source| source.plugin_ref == DEFAULT_SOURCE);
        if !lists_default && data_layer.inject_defaults != Some(false) {
            self.find_or_make(DEFAULT_SOURCE, REASON)?;
            self.find_or_make(DEFAULT_EXTRACTOR, REASON)?;
            sources.push(Source {
                plugin_ref: DEFAULT_SOURCE.to_owned(),
                extractors: vec![PluginRef {
                    plugin_ref: DEFAULT_EXTRACTOR.to_owned(),
                }],
            });
        }
        let mut plan = DataLayerPlan::default();
        let mut told = Vec::new();
        for (index, source) in sources.iter().enumerate() {
            match self.notification(index, source)? {
                Some(kind) if told.contains(&kind) => return Err(ConfigError::NotifiedTwice { index }),
                Some(kind) => told.push(kind),
                None => plan.sources.push(self.source(index, source)?),
            }
        }
        if let Some(discovery) = &data_layer.discovery {
            let field = "dataLayer.discovery.pluginRef";
            let instance = self.resolve(field, &discovery.plugin_ref)?;
            let found = self.expect(field, instance, "an endpoint discovery", |plugin| {
                match &plugin.component {
                    Some(Component::Discovery(any)) => any.clone().downcast::<FileDiscovery>().ok(),
                    _ => None,
                }
            })?;
            plan.discovery = Some(found);
        }
        Ok(plan)
    }

    /// Checks a source that tells of changes; `None` for one that is polled.
    fn notification(&mut self, index: usize, source: &Source) -> Result<Option<Notification>, ConfigError> {
        let field = format!("dataLayer.sources[{index}].pluginRef");
        let instance = self.resolve(&field, &source.plugin_ref)?;
        let kind = match &self.instances[instance].plugin.component {
            Some(Component::DataSource(any)) => any.clone().downcast::<Notification>().ok(),
            _ => None,
        };
        let Some(kind) = kind else {
            return Ok(None);
        };
        for (position, extractor) in source.extractors.iter().enumerate() {
            let field = format!("dataLayer.sources[{index}].extractors[{position}].pluginRef");
            let instance = self.resolve(&field, &extractor.plugin_ref)?;
            let name = &self.instances[instance].name;
            if *kind != Notification::Endpoints || name.plugin_type != topology_extractor::TYPE {
                return Err(ConfigError::WrongKind {
                    field,
                    name: name.name.to_string(),
                    wanted: "an extractor that reads what its source tells",
                });
            }
        }
        if let Notification::Objects { kind, .. } = &*kind {
            self.warnings.push(format!(
                "dataLayer.sources[{index}]: no extractor reads objects, {kind} is not watched"
            ));
        }
        Ok(Some(Notification::clone(&kind)))
    }

    fn source(&self, index: usize, source: &Source) -> Result<SourcePlan, ConfigError> {
        let field = format!("dataLayer.sources[{index}].pluginRef");
        let instance = self.resolve(&field, &source.plugin_ref)?;
        let found = self.expect(&field, instance, "a data source", |plugin| {
            match &plugin.component {
                Some(Component::DataSource(any)) => any.clone().downcast::<PolledSource>().ok(),
                _ => None,
            }
        })?;
        let mut extractors: Vec<(TypedName, Arc<PageReader>)> = Vec::new();
        for (position, extractor) in source.extractors.iter().enumerate() {
            let field = format!("dataLayer.sources[{index}].extractors[{position}].pluginRef");
            let instance = self.resolve(&field, &extractor.plugin_ref)?;
            let reader = self.expect(&field, instance, "an extractor", |plugin| {
                match &plugin.component {
                    Some(Component::Extractor(any)) => any.clone().downcast::<PageReader>().ok(),
                    _ => None,
                }
            })?;
            let name = self.instances[instance].name.clone();
            if reader.format() != found.source_type.format {
                return Err(ConfigError::WrongKind {
                    field,
                    name: name.name.to_string(),
                    wanted: "an extractor that reads what its source fetches",
                });
            }
            if extractors
                .iter()
                .any(|(known, _)| known.plugin_type == name.plugin_type)
            {
                return Err(ConfigError::DuplicateExtractor {
                    index,
                    plugin_type: name.plugin_type,
                });
            }
            extractors.push((name, reader));
        }
        Ok(SourcePlan {
            name: self.instances[instance].name.clone(),
            source: found,
            extractors,
        })
    }

    fn resolve(&self, field: &str, name: &str) -> Result<usize, ConfigError> {
        self.by_name
            .get(name)
            .copied()
            .ok_or_else(|| ConfigError::Undefined {
                field: field.to_owned(),
                name: name.to_owned(),
            })
    }

    pub(super) fn expect<T>(
        &self,
        field: &str,
        index: usize,
        wanted: &'static str,
        get: impl Fn(&Plugin) -> Option<T>,
    ) -> Result<T, ConfigError> {
        let instance = &self.instances[index];
        get(&instance.plugin).ok_or_else(|| ConfigError::WrongKind {
            field: field.to_owned(),
            name: instance.name.name.to_string(),
            wanted,
        })
    }
}
