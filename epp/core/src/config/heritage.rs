//! What a configuration leaves to the one that replaces it: plugin instances with what they learned.

use std::fmt;

use llmd_epp_api::attribute::AttributeLayout;
use llmd_epp_api::registry::Declaration;
use llmd_epp_api::{DataKey, MetricsScope, Plugin, TypedName};

use super::{EndpointPickerConfig, PluginSpec};

/// The instances of a running configuration. An instance whose type, name and parameters stay the
/// same goes on in the next one: its prefix index, LRU order, sessions and counters are kept.
pub struct Heritage {
    pub(super) metrics: MetricsScope,
    pub(super) layout: AttributeLayout,
    pub(super) instances: Vec<Kept>,
}

/// One instance as it was built.
#[derive(Clone)]
pub(super) struct Kept {
    pub(super) name: TypedName,
    pub(super) parameters: serde_json::Value,
    pub(super) plugin: Plugin,
    pub(super) declarations: Vec<Declaration>,
    pub(super) warnings: Vec<String>,
}

impl Heritage {
    /// The attributes of the next configuration: those of instances that may go on keep their place.
    pub(super) fn layout_for(&self, config: &EndpointPickerConfig) -> AttributeLayout {
        let goes_on = |kept: &&Kept| {
            let specs = config.plugins.iter();
            let mut redefined = specs.filter(|spec| spec.instance_name() == &*kept.name.name);
            redefined.all(|spec| kept.is(spec.plugin_type.as_str(), spec.instance_name(), &spec.parameters))
        };
        let kept: Vec<&DataKey> = self
            .instances
            .iter()
            .filter(goes_on)
            .flat_map(|instance| &instance.declarations)
            .map(|declaration| &declaration.key)
            .collect();
        self.layout.successor(|key| kept.contains(&key))
    }

    /// The instance that an entry of the next configuration continues.
    pub(super) fn find(
        &self,
        plugin_type: &str,
        name: &str,
        parameters: &serde_json::Value,
    ) -> Option<&Kept> {
        self.instances
            .iter()
            .find(|kept| kept.is(plugin_type, name, parameters))
    }
}

impl Kept {
    fn is(&self, plugin_type: &str, name: &str, parameters: &serde_json::Value) -> bool {
        self.name.plugin_type == plugin_type && &*self.name.name == name && self.parameters == *parameters
    }
}

impl PluginSpec {
    /// The name, or the type in its place.
    pub fn instance_name(&self) -> &str {
        if self.name.is_empty() {
            &self.plugin_type
        } else {
            &self.name
        }
    }
}

impl fmt::Debug for Heritage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.instances.iter().map(|kept| kept.name.to_string());
        f.debug_list().entries(names).finish()
    }
}

#[cfg(test)]
mod tests;
