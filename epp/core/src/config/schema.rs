//! The document's shape, its groups and versions, and the fields that moved.

use serde::{Deserialize, Deserializer};

use super::{ConfigError, GoDuration, Quantity};

const KIND: &str = "EndpointPickerConfig";
const API_VERSION: &str = "llm-d.ai/v1alpha1";
const DEPRECATED_API_VERSION: &str = "inference.networking.x-k8s.io/v1alpha1";

/// A decoded document and what its author should know about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// The document; deprecated fields are moved to their new places.
    pub config: EndpointPickerConfig,
    /// One line per deprecated or ineffective field.
    pub warnings: Vec<String>,
}

/// The document as written. Defaults are applied by [`assemble`](super::assemble).
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EndpointPickerConfig {
    /// Group and version.
    #[serde(default)]
    pub api_version: String,
    /// `EndpointPickerConfig`.
    #[serde(default)]
    pub kind: String,
    /// `name`, `name=true` or `name=false`.
    #[serde(default, deserialize_with = "or_default")]
    pub feature_gates: Vec<String>,
    /// Plugin instances.
    #[serde(default, deserialize_with = "or_default")]
    pub plugins: Vec<PluginSpec>,
    /// What runs for a request.
    #[serde(default, deserialize_with = "or_default")]
    pub scheduling_profiles: Vec<SchedulingProfile>,
    /// Where endpoints and their metrics come from.
    #[serde(default, deserialize_with = "or_default")]
    pub data_layer: DataLayer,
    /// Queues; used only with the gate `flowControl`, except `saturationDetector`.
    #[serde(default)]
    pub flow_control: Option<FlowControl>,
    /// Body parsers.
    #[serde(default, deserialize_with = "or_default")]
    pub request_handler: RequestHandler,
    /// Deprecated place of `flowControl.saturationDetector`.
    #[serde(default)]
    saturation_detector: Option<PluginRef>,
    /// Deprecated place of `requestHandler.parsers`.
    #[serde(default)]
    parser: Option<PluginRef>,
}

/// One plugin instance.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PluginSpec {
    /// Instance name; the type when empty.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// Registered type.
    #[serde(rename = "type", default, deserialize_with = "or_default")]
    pub plugin_type: String,
    /// The type's own parameters.
    #[serde(default)]
    pub parameters: serde_json::Value,
}

/// One scheduling profile.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SchedulingProfile {
    /// Unique name.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// Filters, scorers and one picker, in order.
    #[serde(default, deserialize_with = "or_default")]
    pub plugins: Vec<ProfilePlugin>,
}

/// A plugin's part in a profile.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProfilePlugin {
    /// Instance name.
    #[serde(default, deserialize_with = "or_default")]
    pub plugin_ref: String,
    /// Factor of a scorer; 1.0 when absent.
    #[serde(default)]
    pub weight: Option<f64>,
}

/// A reference to an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PluginRef {
    /// Instance name.
    #[serde(default, deserialize_with = "or_default")]
    pub plugin_ref: String,
}

/// `dataLayer`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DataLayer {
    /// Add the metrics source and the core extractor; true when absent.
    #[serde(default)]
    pub inject_defaults: Option<bool>,
    /// Sources with their extractors.
    #[serde(default, deserialize_with = "or_default")]
    pub sources: Vec<Source>,
    /// Discovery in place of Kubernetes.
    #[serde(default)]
    pub discovery: Option<PluginRef>,
    /// Peers for cross-replica state.
    #[serde(default)]
    pub peer_discovery: Option<PluginRef>,
    /// Cross-replica state.
    #[serde(default)]
    pub cross_replica_syncer_plugin_ref: Option<String>,
    /// Interval of the syncer; 200 ms when absent.
    #[serde(default)]
    pub cross_replica_sync_interval: Option<GoDuration>,
}

/// One source of endpoint data.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Source {
    /// Instance name of the source.
    #[serde(default, deserialize_with = "or_default")]
    pub plugin_ref: String,
    /// Extractors bound to it.
    #[serde(default, deserialize_with = "or_default")]
    pub extractors: Extractors,
}

/// References to extractors.
pub type Extractors = Vec<PluginRef>;

/// `requestHandler`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequestHandler {
    /// Parsers in order.
    #[serde(default, deserialize_with = "or_default")]
    pub parsers: Vec<PluginRef>,
}

/// `flowControl`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FlowControl {
    /// Cap of all queued bodies.
    #[serde(default)]
    pub max_bytes: Option<Quantity>,
    /// Cap of all queued requests.
    #[serde(default)]
    pub max_requests: Option<Quantity>,
    /// Time a request may wait.
    #[serde(rename = "defaultRequestTTL", default)]
    pub default_request_ttl: Option<GoDuration>,
    /// Time a request may wait while the pool is empty.
    #[serde(rename = "noEndpointRequestTTL", default)]
    pub no_endpoint_request_ttl: Option<GoDuration>,
    /// Bands with own settings.
    #[serde(default, deserialize_with = "or_default")]
    pub priority_bands: Vec<PriorityBand>,
    /// Template for other priorities.
    #[serde(default)]
    pub default_priority_band: Option<PriorityBand>,
    /// Template for other priorities below zero.
    #[serde(default)]
    pub default_negative_priority_band: Option<PriorityBand>,
    /// Usage-limit policy.
    #[serde(default)]
    pub usage_limit_policy_plugin_ref: Option<String>,
    /// Saturation detector; also used with the gate off.
    #[serde(default)]
    pub saturation_detector: Option<PluginRef>,
    /// In-flight eviction.
    #[serde(default)]
    pub enable_eviction: Option<bool>,
}

/// One priority band.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PriorityBand {
    /// The priority; absent in templates.
    #[serde(default)]
    pub priority: Option<i32>,
    /// Cap of queued bodies.
    #[serde(default)]
    pub max_bytes: Option<Quantity>,
    /// Cap of queued requests.
    #[serde(default)]
    pub max_requests: Option<Quantity>,
    /// Fairness policy.
    #[serde(default)]
    pub fairness_policy_ref: Option<String>,
    /// Ordering policy.
    #[serde(default)]
    pub ordering_policy_ref: Option<String>,
}

/// Go decodes `null` like an absent field.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// The full path once: the YAML library names only the enclosing objects of a wrong value.
fn with_path(path: &str, error: &serde_yaml::Error) -> String {
    let text = error.to_string();
    if path == "." {
        return text;
    }
    let bare = text
        .split_once(": ")
        .filter(|(outer, _)| path.starts_with(outer))
        .map_or(&*text, |(_, bare)| bare);
    format!("{path}: {bare}")
}

impl EndpointPickerConfig {
    /// Decodes YAML or JSON. Unknown fields are errors with their path.
    pub fn decode(text: &str) -> Result<Decoded, ConfigError> {
        let document = serde_yaml::Deserializer::from_str(text);
        let mut config: Self = serde_path_to_error::deserialize(document)
            .map_err(|error| ConfigError::Decode(with_path(&error.path().to_string(), error.inner())))?;
        let mut warnings = Vec::new();
        if config.kind != KIND
            || ![API_VERSION, DEPRECATED_API_VERSION].contains(&config.api_version.as_str())
        {
            return Err(ConfigError::Kind {
                api_version: config.api_version,
                kind: config.kind,
            });
        }
        if config.api_version == DEPRECATED_API_VERSION {
            warnings.push(format!(
                "apiVersion {DEPRECATED_API_VERSION} is deprecated; use {API_VERSION}"
            ));
        }
        config.move_deprecated_fields(&mut warnings);
        Ok(Decoded { config, warnings })
    }

    fn move_deprecated_fields(&mut self, warnings: &mut Vec<String>) {
        if let Some(detector) = self.saturation_detector.take() {
            warnings.push("saturationDetector is deprecated; use flowControl.saturationDetector".into());
            let flow_control = self.flow_control.get_or_insert_default();
            flow_control.saturation_detector.get_or_insert(detector);
        }
        if let Some(parser) = self.parser.take() {
            warnings.push("parser is deprecated; use requestHandler.parsers".into());
            if self.request_handler.parsers.is_empty() {
                self.request_handler.parsers.push(parser);
            }
        }
    }

    /// What upstream uses when no configuration is given.
    pub fn upstream_default() -> Self {
        let instance = |plugin_type: &str| PluginSpec {
            plugin_type: plugin_type.to_owned(),
            ..PluginSpec::default()
        };
        let scored = |plugin_ref: &str, weight: f64| ProfilePlugin {
            plugin_ref: plugin_ref.to_owned(),
            weight: Some(weight),
        };
        let scorers = [
            ("queue-scorer", 2.0),
            ("kv-cache-utilization-scorer", 2.0),
            ("prefix-cache-scorer", 3.0),
        ];
        Self {
            api_version: API_VERSION.to_owned(),
            kind: KIND.to_owned(),
            plugins: scorers
                .iter()
                .map(|(scorer, _)| *scorer)
                .chain(["metrics-data-source", "core-metrics-extractor"])
                .map(instance)
                .collect(),
            scheduling_profiles: vec![SchedulingProfile {
                name: "default".to_owned(),
                plugins: scorers
                    .iter()
                    .map(|(scorer, weight)| scored(scorer, *weight))
                    .collect(),
            }],
            ..Self::default()
        }
    }

    /// The configured saturation detector.
    pub fn saturation_detector(&self) -> Option<&str> {
        let configured = self.flow_control.as_ref()?.saturation_detector.as_ref()?;
        Some(&configured.plugin_ref)
    }

    /// Whether `flowControl` says more than the saturation detector.
    pub fn has_queue_settings(&self) -> bool {
        self.flow_control.as_ref().is_some_and(|flow_control| {
            let without_detector = FlowControl {
                saturation_detector: None,
                ..flow_control.clone()
            };
            without_detector != FlowControl::default()
        })
    }
}
