//! Pinned definitions of other projects; `foreign/NOTICE` says where they come from.

/// `InferencePool`, `InferenceObjective` and `InferenceModelRewrite`: YAML documents.
pub const GAIE: &str = include_str!("../foreign/gaie.yaml");

/// `LeaderWorkerSet` and `DisaggregatedSet`: YAML documents.
pub const LWS: &str = include_str!("../foreign/lws.yaml");
