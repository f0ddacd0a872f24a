//! From one configuration to the next: which instances are taken over, and what is left.

use llmd_epp_api::Plugin;
use llmd_epp_api::registry::Declaration;

use super::Builder;
use crate::config::heritage::{Heritage, Kept};

impl Builder {
    /// Takes an instance over from the configuration before.
    pub(super) fn carry(&mut self, index: usize, kept: &Kept) -> (Plugin, Vec<String>) {
        let declarations = kept.declarations.iter().cloned();
        self.state
            .declarations
            .extend(declarations.map(|declaration| Declaration {
                instance: index,
                ..declaration
            }));
        self.carried.push(kept.name.name.clone());
        (kept.plugin.clone(), kept.warnings.clone())
    }

    /// What the next configuration takes over from this one.
    pub(super) fn heritage(&self) -> Heritage {
        let declarations_of = |index: usize| {
            let all = self.state.declarations.iter();
            all.filter(move |declaration| declaration.instance == index)
                .cloned()
        };
        let instances = self.instances.iter().enumerate();
        let independent = instances.filter(|(_, instance)| !instance.is_bound);
        let kept = independent.map(|(index, instance)| Kept {
            name: instance.name.clone(),
            parameters: instance.parameters.clone(),
            plugin: instance.plugin.clone(),
            declarations: declarations_of(index).collect(),
            warnings: instance.warnings.clone(),
        });
        Heritage {
            metrics: self.state.metrics.clone(),
            layout: self.state.layout.clone(),
            instances: kept.collect(),
        }
    }
}
