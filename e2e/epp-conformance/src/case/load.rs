//! Reads the files of cases and refuses what could not run as written.

use std::collections::BTreeSet;

use anyhow::{Context, bail, ensure};
use serde_json::{Map, Value, json};

use super::{Case, Group, SetupPart, Step};
use crate::setup::Setup;

/// A case with its full name and set-up.
#[derive(Clone, Debug)]
pub struct Selected {
    /// `group/case`.
    pub id: String,
    /// The case.
    pub case: Case,
    /// What it runs on.
    pub setup: Setup,
}

/// Reads one file.
pub fn load(name: &str, text: &str) -> anyhow::Result<Group> {
    let mut yaml: serde_yaml::Value =
        serde_yaml::from_str(text).with_context(|| format!("{name} is not YAML"))?;
    yaml.apply_merge()
        .with_context(|| format!("{name}: merge keys"))?;
    let json = serde_json::to_value(yaml).with_context(|| format!("{name} has keys that are no text"))?;
    let group: Group = serde_json::from_value(json).with_context(|| format!("in {name}"))?;
    let mut names = BTreeSet::new();
    for case in &group.cases {
        ensure!(
            names.insert(&case.name),
            "{name}: two cases are called {}",
            case.name
        );
        ensure!(!case.sheet.is_empty(), "{name}: {} cites no row", case.name);
        ensure!(
            case.start.is_some() || case.call.is_some() || !case.steps.is_empty(),
            "{name}: {} does nothing",
            case.name
        );
        ensure!(
            case.call.is_none() || case.steps.is_empty(),
            "{name}: {} has `call` and `steps`",
            case.name
        );
    }
    Ok(group)
}

/// The cases of a group with their set-ups.
pub fn selected(group: &Group) -> anyhow::Result<Vec<Selected>> {
    group
        .cases
        .iter()
        .map(|case| {
            let id = format!("{}/{}", group.group, case.name);
            let setup = setup(&group.setup, &case.setup, case).with_context(|| id.clone())?;
            Ok(Selected {
                id,
                case: case.clone(),
                setup,
            })
        })
        .collect()
}

fn setup(group: &SetupPart, own: &SetupPart, case: &Case) -> anyhow::Result<Setup> {
    let own_config = own.config.is_some() || own.profile.is_some() || own.plugins.is_some();
    let config = if own_config { own } else { group };
    let config = match (&config.config, &config.profile) {
        (Some(_), Some(_)) => bail!("`config` and `profile` exclude each other"),
        (Some(config), None) => Some(config.clone()),
        (None, Some(profile)) => Some(one_profile(
            profile,
            config.plugins.as_deref().unwrap_or_default(),
        )?),
        (None, None) => None,
    };
    let pool = own.pool.as_ref().or(group.pool.as_ref());
    let pool = pool
        .map(|members| {
            members
                .iter()
                .map(|(name, member)| {
                    let member = if member.is_null() {
                        json!({})
                    } else {
                        member.clone()
                    };
                    let member = serde_json::from_value(member).with_context(|| format!("member {name}"))?;
                    Ok((name.clone(), member))
                })
                .collect::<anyhow::Result<Vec<_>>>()
        })
        .transpose()?;
    let flags = own.flags.as_ref().or(group.flags.as_ref());
    let setup = Setup {
        config,
        flags: flags.cloned().unwrap_or_default(),
        pool,
        is_own: case.fresh || case.start.is_some() || case.all_steps().iter().any(changes_the_pool),
    };
    Ok(setup)
}

fn changes_the_pool(step: &Step) -> bool {
    matches!(step, Step::Set(_) | Step::Members(_))
}

/// The configuration with one profile of these plugins.
fn one_profile(entries: &[Value], further: &[Value]) -> anyhow::Result<Value> {
    let (mut plugins, mut references) = (Vec::new(), Vec::new());
    for (entry, is_listed) in entries
        .iter()
        .map(|entry| (entry, true))
        .chain(further.iter().map(|entry| (entry, false)))
    {
        let mut plugin = match entry {
            Value::String(kind) => Map::from_iter([("type".to_owned(), kind.clone().into())]),
            Value::Object(map) => map.clone(),
            _ => bail!("a plugin is a type or an object, not {entry}"),
        };
        let weight = plugin.remove("weight");
        let name = plugin.get("name").or(plugin.get("type")).cloned();
        if is_listed {
            let mut reference = json!({ "pluginRef": name.context("a plugin without type")? });
            if let Some(weight) = weight {
                reference["weight"] = weight;
            }
            references.push(reference);
        }
        plugins.push(Value::Object(plugin));
    }
    Ok(json!({
        "apiVersion": "llm-d.ai/v1alpha1",
        "kind": "EndpointPickerConfig",
        "plugins": plugins,
        "schedulingProfiles": [{"name": "default", "plugins": references}],
    }))
}
