//! Why a configuration was refused.

use llmd_epp_api::BuildError;

/// One reason, naming the key. Upstream's wording is kept where it has one.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not YAML or JSON of the right shape; carries the path and the position.
    #[error("cannot decode the EndpointPickerConfig: {0}")]
    Decode(String),
    /// Another kind of document.
    #[error(
        "apiVersion '{api_version}', kind '{kind}' is not supported; use apiVersion llm-d.ai/v1alpha1, kind EndpointPickerConfig"
    )]
    Kind {
        /// As written.
        api_version: String,
        /// As written.
        kind: String,
    },
    /// A gate nobody knows.
    #[error("feature gate '{0}' is unknown or unregistered")]
    UnknownGate(String),
    /// A gate with a value that is no boolean.
    #[error("feature gate '{name}' has the value '{value}'; use true or false")]
    GateValue {
        /// The gate.
        name: String,
        /// As written.
        value: String,
    },
    /// Something upstream has and this build has not.
    #[error("{field} is not available in this build; {fix}")]
    NotAvailable {
        /// The key.
        field: String,
        /// What to do instead.
        fix: &'static str,
    },
    /// An entry without a type.
    #[error("plugin '{0}' is missing a type")]
    MissingType(String),
    /// Two instances of one name.
    #[error("duplicate plugin name '{0}'")]
    DuplicateName(String),
    /// A type that is not in the registry.
    #[error("plugin type '{0}' is not registered")]
    UnknownType(String),
    /// A plugin that needs the flag.
    #[error(
        "plugin '{name}' of type '{plugin_type}' is Alpha; start with --allow-experimental-plugins to use it"
    )]
    Experimental {
        /// The instance.
        name: String,
        /// Its type.
        plugin_type: &'static str,
    },
    /// Wrong parameters.
    #[error("plugin '{name}' (type '{plugin_type}'): {source}")]
    Plugin {
        /// The instance.
        name: String,
        /// Its type.
        plugin_type: &'static str,
        /// What is wrong.
        source: BuildError,
    },
    /// A consumer names a producer that does not exist, or nothing produces what it needs.
    #[error(
        "a plugin has a dependency on the unregistered plugin {producer}: '{consumer}' needs {attribute}"
    )]
    UnknownDependency {
        /// The missing producer.
        producer: String,
        /// Who asks.
        consumer: String,
        /// What for.
        attribute: &'static str,
    },
    /// Producers that wait for each other.
    #[error("dependency cycle between the data producers {0}")]
    Cycle(String),
    /// A profile without a name.
    #[error("schedulingProfiles[{0}] is missing a name")]
    ProfileName(usize),
    /// Two profiles of one name.
    #[error("schedulingProfiles[{index}] has the duplicate name '{name}'")]
    DuplicateProfile {
        /// Position of the second one.
        index: usize,
        /// The name.
        name: String,
    },
    /// An entry of a profile without a reference.
    #[error("schedulingProfiles[{profile}].plugins[{index}] is missing a 'pluginRef'")]
    MissingRef {
        /// The profile.
        profile: String,
        /// Position in its list.
        index: usize,
    },
    /// A profile names an instance that does not exist.
    #[error("schedulingProfiles[{profile}] references undefined plugin '{name}'")]
    UndefinedInProfile {
        /// The profile.
        profile: String,
        /// The reference.
        name: String,
    },
    /// A weight that is no number.
    #[error("schedulingProfiles[{profile}].plugins[{index}].weight must be a finite number")]
    Weight {
        /// The profile.
        profile: String,
        /// Position in its list.
        index: usize,
    },
    /// Two pickers in one profile.
    #[error("schedulingProfiles[{profile}] has the second picker '{name}'; a profile has one")]
    SecondPicker {
        /// The profile.
        profile: String,
        /// The second one.
        name: String,
    },
    /// Some other reference to an instance that does not exist, or is of another kind.
    #[error("{field} references undefined plugin '{name}'")]
    Undefined {
        /// Which field.
        field: String,
        /// The reference.
        name: String,
    },
    /// A reference to an instance of the wrong kind.
    #[error("{field} references '{name}', which is not {wanted}")]
    WrongKind {
        /// Which field.
        field: String,
        /// The reference.
        name: String,
        /// What was wanted, with its article.
        wanted: &'static str,
    },
    /// Two sources that tell of the same.
    #[error("dataLayer.sources[{index}]: another source tells of the same objects already; remove one")]
    NotifiedTwice {
        /// Position of the second one.
        index: usize,
    },
    /// The same extractor type twice on one source.
    #[error("dataLayer.sources[{index}] has the extractor type '{plugin_type}' twice")]
    DuplicateExtractor {
        /// Position of the source.
        index: usize,
        /// The type.
        plugin_type: &'static str,
    },
    /// More than one profile handler.
    #[error("multiple profile handlers found: '{0}' and '{1}'")]
    ManyHandlers(String, String),
    /// Several profiles and nobody to choose.
    #[error("no profile handler configured; several scheduling profiles need one")]
    NoHandler,
    /// The profile handler refuses the profiles.
    #[error("{0}")]
    Handler(String),
    /// In-flight load would be counted twice.
    #[error("plugins '{0}' and '{1}' both account in-flight load; configure one inflight-load-producer")]
    ManyReservers(String, String),
    /// A metric of the scheduler could not be registered.
    #[error("metric: {0}")]
    Metric(#[from] prometheus::Error),
}
