//! The scheduling profiles: defaults, checks, plugins in order.

use super::Builder;
use super::instances::Instance;
use crate::config::{ConfigError, EndpointPickerConfig, ProfilePlugin, SchedulingProfile};
use crate::scheduler::{Profile, ProfileParts};

const DEFAULT_PROFILE: &str = "default";
const DEFAULT_PROFILE_HANDLER: &str = "single-profile-handler";
const DEFAULT_PICKER: &str = "max-score-picker";

impl Builder {
    /// The profiles as written, or `default` with every filter, scorer and picker; each has a picker.
    pub(super) fn default_profiles(
        &mut self,
        config: &EndpointPickerConfig,
    ) -> Result<Vec<SchedulingProfile>, ConfigError> {
        let mut profiles = config.scheduling_profiles.clone();
        if profiles.is_empty() {
            let plugins = self.instances.iter().filter(|instance| {
                let plugin = &instance.plugin;
                plugin.filter.is_some() || plugin.scorer.is_some() || plugin.picker.is_some()
            });
            profiles.push(SchedulingProfile {
                name: DEFAULT_PROFILE.to_owned(),
                plugins: plugins.map(|instance| reference(&instance.name.name)).collect(),
            });
        }
        let mut names: Vec<&str> = Vec::new();
        for (index, profile) in profiles.iter().enumerate() {
            if profile.name.is_empty() {
                return Err(ConfigError::ProfileName(index));
            }
            if names.contains(&profile.name.as_str()) {
                return Err(ConfigError::DuplicateProfile {
                    index,
                    name: profile.name.clone(),
                });
            }
            names.push(&profile.name);
            for (position, plugin) in profile.plugins.iter().enumerate() {
                if plugin.plugin_ref.is_empty() {
                    return Err(ConfigError::MissingRef {
                        profile: profile.name.clone(),
                        index: position,
                    });
                }
                if !self.by_name.contains_key(plugin.plugin_ref.as_str()) {
                    return Err(ConfigError::UndefinedInProfile {
                        profile: profile.name.clone(),
                        name: plugin.plugin_ref.clone(),
                    });
                }
            }
        }
        let picker = match self.first_with(|plugin| plugin.picker.is_some()) {
            Some(picker) => picker,
            None => self.find_or_make(DEFAULT_PICKER, "no picker is configured")?,
        };
        for profile in &mut profiles {
            let has_picker = profile.plugins.iter().any(|plugin| {
                let index = self.by_name[plugin.plugin_ref.as_str()];
                self.instances[index].plugin.picker.is_some()
            });
            if !has_picker {
                profile.plugins.push(reference(&self.instances[picker].name.name));
            }
        }
        Ok(profiles)
    }

    pub(super) fn profile(&mut self, profile: &SchedulingProfile) -> Result<Profile, ConfigError> {
        let mut parts = ProfileParts::default();
        for (index, entry) in profile.plugins.iter().enumerate() {
            let Instance { name, plugin, .. } = &self.instances[self.by_name[entry.plugin_ref.as_str()]];
            if let Some(filter) = &plugin.filter {
                parts.filters.push((name.clone(), filter.clone()));
            }
            if let Some(scorer) = &plugin.scorer {
                let weight = entry.weight.unwrap_or(1.0);
                if !weight.is_finite() {
                    return Err(ConfigError::Weight {
                        profile: profile.name.clone(),
                        index,
                    });
                }
                parts.scorers.push((name.clone(), scorer.clone(), weight));
            } else if entry.weight.is_some() {
                self.warnings.push(format!(
                    "schedulingProfiles[{}].plugins[{index}].weight has no effect: '{}' is no scorer",
                    profile.name, entry.plugin_ref
                ));
            }
            if let Some(picker) = &plugin.picker {
                if parts.picker.is_some() {
                    return Err(ConfigError::SecondPicker {
                        profile: profile.name.clone(),
                        name: entry.plugin_ref.clone(),
                    });
                }
                parts.picker = Some((name.clone(), picker.clone()));
            }
            if plugin.filter.is_none() && plugin.scorer.is_none() && plugin.picker.is_none() {
                self.warnings.push(format!(
                    "schedulingProfiles[{}].plugins[{index}] has no effect: '{}' neither filters, scores nor picks",
                    profile.name, entry.plugin_ref
                ));
            }
        }
        if parts.scorers.is_empty() {
            self.warnings.push(format!(
                "schedulingProfiles[{}] has no scorer: the least loaded endpoints are picked",
                profile.name
            ));
        }
        Ok(Profile::new(profile.name.as_str().into(), parts))
    }

    pub(super) fn profile_handler(&mut self, profiles: usize) -> Result<usize, ConfigError> {
        let handlers: Vec<usize> = self.indices(|plugin| plugin.profile_handler.is_some()).collect();
        match handlers[..] {
            [] if profiles == 1 => self.find_or_make(DEFAULT_PROFILE_HANDLER, "there is one profile"),
            [] => Err(ConfigError::NoHandler),
            [only] => Ok(only),
            [first, second, ..] => Err(ConfigError::ManyHandlers(
                self.instances[first].name.name.to_string(),
                self.instances[second].name.name.to_string(),
            )),
        }
    }
}

fn reference(name: &str) -> ProfilePlugin {
    ProfilePlugin {
        plugin_ref: name.to_owned(),
        weight: None,
    }
}
