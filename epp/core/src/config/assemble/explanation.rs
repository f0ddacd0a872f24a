//! Tells what was assembled.

use llmd_epp_api::Stability;

use super::{Builder, DataLayerPlan, ParserPlan};
use crate::config::explain::{DataLayer, Explanation, Instance, Profile, Source, Weighted};
use crate::config::{EndpointPickerConfig, SchedulingProfile};

impl Builder {
    /// `profiles` have their defaults; `handler` and `detector` are indices of instances.
    pub(super) fn explain(
        &self,
        config: &EndpointPickerConfig,
        profiles: &[SchedulingProfile],
        [handler, detector]: [usize; 2],
        producers: &[usize],
        parsers: &[ParserPlan],
        data_layer: &DataLayerPlan,
    ) -> Explanation {
        let name = |index: usize| self.instances[index].name.name.to_string();
        let sources = data_layer.sources.iter().map(|source| Source {
            plugin: source.name.name.to_string(),
            extractors: source
                .extractors
                .iter()
                .map(|(name, _)| name.name.to_string())
                .collect(),
        });
        let discovery = config.data_layer.discovery.as_ref();
        Explanation {
            plugins: (0..self.instances.len())
                .map(|index| self.explain_instance(index))
                .collect(),
            profile_handler: name(handler),
            profiles: profiles
                .iter()
                .map(|profile| self.explain_profile(profile))
                .collect(),
            producers: producers.iter().copied().map(name).collect(),
            saturation_detector: name(detector),
            parsers: parsers
                .iter()
                .map(|parser| parser.name.name.to_string())
                .collect(),
            data_layer: DataLayer {
                discovery: discovery
                    .map_or_else(|| "kubernetes".to_owned(), |plugin| plugin.plugin_ref.clone()),
                sources: sources.collect(),
            },
            filled_in: self.filled_in(config, profiles),
        }
    }

    fn explain_instance(&self, index: usize) -> Instance {
        let instance = &self.instances[index];
        let keys = |reads: bool| {
            let all = self.state.declarations.iter();
            let own = all.filter(move |key| key.instance == index && key.need.is_some() == reads);
            own.map(|declaration| declaration.key.to_string()).collect()
        };
        Instance {
            name: instance.name.name.to_string(),
            plugin_type: instance.name.plugin_type,
            stability: match instance.stability {
                Stability::Alpha => "Alpha",
                Stability::Beta => "Beta",
                Stability::Deprecated { .. } => "Deprecated",
            },
            extension_points: instance.plugin.extension_points(),
            produces: keys(false),
            consumes: keys(true),
            parameters: instance.parameters.clone(),
            default_because: instance.default_because.clone(),
        }
    }

    fn explain_profile(&self, profile: &SchedulingProfile) -> Profile {
        let mut explained = Profile {
            name: profile.name.clone(),
            ..Profile::default()
        };
        for entry in &profile.plugins {
            let plugin = &self.instances[self.by_name[entry.plugin_ref.as_str()]].plugin;
            let name = || entry.plugin_ref.clone();
            if plugin.filter.is_some() {
                explained.filters.push(name());
            }
            if plugin.scorer.is_some() {
                explained.scorers.push(Weighted {
                    plugin: name(),
                    weight: entry.weight.unwrap_or(1.0),
                });
            }
            if plugin.picker.is_some() {
                explained.picker = name();
            }
        }
        explained
    }

    fn filled_in(&self, config: &EndpointPickerConfig, profiles: &[SchedulingProfile]) -> Vec<String> {
        let mut lines = Vec::new();
        if config.scheduling_profiles.is_empty() {
            let names = profiles.iter().map(|profile| profile.name.as_str());
            let names: Vec<&str> = names.collect();
            lines.push(format!(
                "schedulingProfiles: {} with every filter, scorer and picker",
                names.join(", ")
            ));
        }
        for (index, profile) in profiles.iter().enumerate() {
            let written = config.scheduling_profiles.get(index);
            let added = &profile.plugins[written.map_or(0, |written| written.plugins.len())..];
            for entry in added.iter().filter(|_| written.is_some()) {
                lines.push(format!(
                    "schedulingProfiles[{}]: picker {}",
                    profile.name, entry.plugin_ref
                ));
            }
            for entry in profile.plugins.iter().filter(|entry| entry.weight.is_none()) {
                let plugin = &self.instances[self.by_name[entry.plugin_ref.as_str()]].plugin;
                if plugin.scorer.is_some() {
                    lines.push(format!(
                        "schedulingProfiles[{}]: {} weight 1",
                        profile.name, entry.plugin_ref
                    ));
                }
            }
        }
        let made = self.instances.iter().filter_map(|instance| {
            let why = instance.default_because.as_ref()?;
            Some(format!("plugin {}: {why}", instance.name.name))
        });
        lines.extend(made);
        lines
    }
}
