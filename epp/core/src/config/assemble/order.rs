//! In which order instances are built: as declared, but one that names another after it.

use llmd_epp_api::BuildError;

use super::Builder;
use crate::config::{ConfigError, PluginSpec};
use crate::registry;

impl Builder {
    /// Builds every declared instance.
    pub(super) fn instantiate_all(&mut self, specs: &[PluginSpec]) -> Result<(), ConfigError> {
        let names = specs.iter().map(|spec| spec.instance_name().into());
        self.state.declared = names.collect();
        let mut is_built = vec![false; specs.len()];
        for index in 0..specs.len() {
            self.instantiate_spec(index, specs, &mut is_built, &mut Vec::new())?;
        }
        Ok(())
    }

    /// `waiting` holds the specs whose building led here.
    fn instantiate_spec(
        &mut self,
        index: usize,
        specs: &[PluginSpec],
        is_built: &mut [bool],
        waiting: &mut Vec<usize>,
    ) -> Result<(), ConfigError> {
        if is_built[index] {
            return Ok(());
        }
        let spec = &specs[index];
        if spec.plugin_type.is_empty() {
            let label = if spec.name.is_empty() {
                format!("plugins[{index}]")
            } else {
                spec.name.clone()
            };
            return Err(ConfigError::MissingType(label));
        }
        let plugin_type = registry::find(&spec.plugin_type)
            .ok_or_else(|| ConfigError::UnknownType(spec.plugin_type.clone()))?;
        waiting.push(index);
        loop {
            let built = self.instantiate(plugin_type, spec.instance_name(), &spec.parameters, None);
            let needed = match built {
                Err(ConfigError::Plugin {
                    source: BuildError::Needs(needed),
                    ..
                }) => needed,
                Err(error) => return Err(error),
                Ok(_) => break,
            };
            let other = specs.iter().position(|other| other.instance_name() == &*needed);
            match other {
                Some(other) if !waiting.contains(&other) => {
                    self.instantiate_spec(other, specs, is_built, waiting)?;
                }
                _ => {
                    let names = waiting.iter().map(|index| specs[*index].instance_name());
                    return Err(ConfigError::Cycle(names.collect::<Vec<_>>().join(", ")));
                }
            }
        }
        waiting.pop();
        is_built[index] = true;
        Ok(())
    }
}
