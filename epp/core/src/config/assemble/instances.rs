//! Plugin instances: built from their parameters, taken over, or made by default.

use llmd_epp_api::{BuildContext, Plugin, PluginType, Stability, TypedName};

use super::Builder;
use crate::config::ConfigError;
use crate::registry;

/// One plugin of a configuration.
pub(super) struct Instance {
    pub(super) name: TypedName,
    pub(super) parameters: serde_json::Value,
    pub(super) plugin: Plugin,
    pub(super) warnings: Vec<String>,
    /// It holds other instances: one of them may change while it stays the same.
    pub(super) is_bound: bool,
    pub(super) stability: Stability,
    /// Why it was made, when the configuration does not list it.
    pub(super) default_because: Option<String>,
}

impl Builder {
    pub(super) fn instantiate(
        &mut self,
        plugin_type: &'static PluginType,
        name: &str,
        parameters: &serde_json::Value,
        default_because: Option<String>,
    ) -> Result<usize, ConfigError> {
        if self.by_name.contains_key(name) {
            return Err(ConfigError::DuplicateName(name.to_owned()));
        }
        if plugin_type.stability == Stability::Alpha && !self.allow_experimental {
            return Err(ConfigError::Experimental {
                name: name.to_owned(),
                plugin_type: plugin_type.name,
            });
        }
        let typed_name = TypedName {
            plugin_type: plugin_type.name,
            name: name.into(),
        };
        let index = self.instances.len();
        let predecessor = self.predecessor.clone();
        let kept = predecessor
            .as_ref()
            .and_then(|predecessor| predecessor.find(plugin_type.name, name, parameters));
        let (plugin, warnings) = match kept {
            Some(kept) => self.carry(index, kept),
            None => self.build(plugin_type, &typed_name, parameters)?,
        };
        if let Stability::Deprecated { since, removed_in } = plugin_type.stability {
            self.warnings.push(format!(
                "plugin type '{}' is deprecated since {since} and will be removed in {removed_in}",
                plugin_type.name
            ));
        }
        self.warnings.extend(warnings.iter().cloned());
        self.by_name.insert(typed_name.name.clone(), index);
        self.state
            .instances
            .insert(typed_name.name.clone(), plugin.clone());
        self.instances.push(Instance {
            name: typed_name,
            parameters: parameters.clone(),
            plugin,
            warnings,
            is_bound: std::mem::take(&mut self.state.is_bound),
            stability: plugin_type.stability,
            default_because,
        });
        Ok(index)
    }

    fn build(
        &mut self,
        plugin_type: &'static PluginType,
        name: &TypedName,
        parameters: &serde_json::Value,
    ) -> Result<(Plugin, Vec<String>), ConfigError> {
        let built = (plugin_type.build)(&mut BuildContext {
            name,
            instance: self.instances.len(),
            parameters,
            state: &mut self.state,
            default_producer: &registry::default_producer,
        });
        let warnings = std::mem::take(&mut self.state.warnings);
        if built.is_err() {
            // It may be built once more, after those that it names.
            self.state.is_bound = false;
            let index = self.instances.len();
            self.state
                .declarations
                .retain(|declaration| declaration.instance != index);
        }
        let plugin = built.map_err(|source| ConfigError::Plugin {
            name: name.name.to_string(),
            plugin_type: plugin_type.name,
            source,
        })?;
        Ok((plugin, warnings))
    }

    /// The instance of this name; made with default parameters when the type exists.
    pub(super) fn find_or_make(
        &mut self,
        plugin_type: &'static str,
        reason: impl Into<String>,
    ) -> Result<usize, ConfigError> {
        if let Some(index) = self.by_name.get(plugin_type) {
            return Ok(*index);
        }
        let registered =
            registry::find(plugin_type).ok_or_else(|| ConfigError::UnknownType(plugin_type.to_owned()))?;
        self.instantiate(
            registered,
            plugin_type,
            &serde_json::Value::Null,
            Some(reason.into()),
        )
    }

    pub(super) fn first_with(&self, wanted: impl Fn(&Plugin) -> bool) -> Option<usize> {
        self.instances
            .iter()
            .position(|instance| wanted(&instance.plugin))
    }
}
