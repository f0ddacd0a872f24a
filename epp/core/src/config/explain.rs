//! The effective pipeline in words: what `llmd epp explain-config` prints.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

/// A configuration as it runs, defaults included. Serialized, it is the command's `-o json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Instances in the order in which they were made.
    pub plugins: Vec<Instance>,
    /// Who chooses among the profiles.
    pub profile_handler: String,
    /// The profiles in order.
    pub profiles: Vec<Profile>,
    /// Data producers in the order in which they run.
    pub producers: Vec<String>,
    /// Who tells when the pool is full.
    pub saturation_detector: String,
    /// Body parsers in order.
    pub parsers: Vec<String>,
    /// Where endpoints and their metrics come from.
    pub data_layer: DataLayer,
    /// One line per setting that the file leaves out.
    pub filled_in: Vec<String>,
}

/// One plugin instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    /// Instance name.
    pub name: String,
    /// Registered type.
    #[serde(rename = "type")]
    pub plugin_type: &'static str,
    /// `Alpha`, `Beta` or `Deprecated`.
    pub stability: &'static str,
    /// Where it takes part.
    pub extension_points: Vec<&'static str>,
    /// Attributes it writes, `attribute/producer`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub produces: Vec<String>,
    /// Attributes it reads, `attribute/producer`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub consumes: Vec<String>,
    /// As written; null when there are none.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub parameters: Value,
    /// Why it was made, when the file does not list it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_because: Option<String>,
}

/// One scheduling profile.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    /// Name.
    pub name: String,
    /// Filters in order.
    pub filters: Vec<String>,
    /// Scorers in order.
    pub scorers: Vec<Weighted>,
    /// The picker.
    pub picker: String,
}

/// A scorer and its factor.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Weighted {
    /// Instance name.
    pub plugin: String,
    /// Factor of its scores.
    pub weight: f64,
}

/// Where endpoints and their metrics come from.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DataLayer {
    /// `kubernetes`, or the plugin in its place.
    pub discovery: String,
    /// Polled sources in order.
    pub sources: Vec<Source>,
}

/// One source and what reads it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// Instance name.
    pub plugin: String,
    /// Instance names of its extractors.
    pub extractors: Vec<String>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "PLUGINS, in the order in which they are made")?;
        let width = |of: fn(&Instance) -> &str| {
            let widths = self.plugins.iter().map(|plugin| of(plugin).len());
            widths.max().unwrap_or(0)
        };
        let (names, types) = (width(|plugin| &plugin.name), width(|plugin| plugin.plugin_type));
        for plugin in &self.plugins {
            let points = plugin.extension_points.join(", ");
            let mut notes = Vec::new();
            if plugin.stability != "Beta" {
                notes.push(plugin.stability.to_owned());
            }
            notes.extend(
                plugin
                    .default_because
                    .iter()
                    .map(|why| format!("by default: {why}")),
            );
            let notes = if notes.is_empty() {
                String::new()
            } else {
                format!("  ({})", notes.join("; "))
            };
            writeln!(
                f,
                "  {:names$}  {:types$}  {points}{notes}",
                plugin.name, plugin.plugin_type
            )?;
            if !plugin.parameters.is_null() {
                writeln!(f, "  {:names$}  {:types$}  {}", "", "", plugin.parameters)?;
            }
        }
        writeln!(f, "\nPROFILE HANDLER  {}", self.profile_handler)?;
        for profile in &self.profiles {
            writeln!(f, "\nPROFILE {}", profile.name)?;
            for filter in &profile.filters {
                writeln!(f, "  filter  {filter}")?;
            }
            for Weighted { plugin, weight } in &profile.scorers {
                writeln!(f, "  scorer  {plugin}  weight {weight}")?;
            }
            writeln!(f, "  picker  {}", profile.picker)?;
        }
        writeln!(
            f,
            "\nDATA PRODUCERS, in the order in which they run  {}",
            self.producers.join(", ")
        )?;
        writeln!(f, "SATURATION DETECTOR  {}", self.saturation_detector)?;
        writeln!(f, "PARSERS  {}", self.parsers.join(", "))?;
        writeln!(f, "\nDATA LAYER\n  discovery  {}", self.data_layer.discovery)?;
        for Source { plugin, extractors } in &self.data_layer.sources {
            writeln!(f, "  source     {plugin}  read by {}", extractors.join(", "))?;
        }
        if !self.filled_in.is_empty() {
            writeln!(f, "\nFILLED IN")?;
        }
        self.filled_in.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}
