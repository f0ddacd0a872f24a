//! The contract between the Endpoint Picker's shells, its core and its plugins.
//!
//! Takes in: nothing at run time; this crate only defines types.
//! Holds: endpoints and their stable slots, the immutable [`Snapshot`], what a request asks for,
//! the plugin traits and the registry that builds plugins from configuration.
//! Gives out: the vocabulary that `flow`, `kv`, `predict`, `core` and `server` share.
//!
//! ```text
//!  data layer ──publishes──▶ Snapshot (Arc, immutable)      SlotTable (atomics, outlives snapshots)
//!                               │                                │
//!  request ──▶ InferenceRequest ┴─▶ producers ▶ filters ▶ scorers ▶ picker ──▶ Reservation
//! ```

pub mod attribute;
pub mod clock;
pub mod endpoint;
pub mod error;
pub mod metrics;
pub mod plugin;
pub mod registry;
pub mod render;
pub mod request;
pub mod response;
pub mod slots;
pub mod snapshot;

pub use attribute::{
    AttributeKey, Attributes, DataKey, EncoderCacheMatch, InFlightLoad, LatencyPrediction, Locality,
    PeerEndpoint, Prediction, PrefixMatch, SessionId, TokenizedPrompt, Topology, UncachedTokens,
};
pub use clock::Clock;
pub use endpoint::{Endpoint, EndpointName, EndpointSpec, ROLE_LABEL, Reach};
pub use error::{ErrorCode, RejectReason, Rejection};
pub use llmd_openai::{MediaPart, Modality, PromptInput};
pub use metrics::{ListedModel, MetricsRecord};
pub use plugin::{Cycle, Random, RequestChanges, TypedName};
pub use registry::{BuildContext, BuildError, MetricsScope, Need, Plugin, PluginType, Stability, Timing};
pub use render::RenderBackend;
pub use request::{Headers, InferenceRequest, Objective};
pub use response::{Metadata, MetadataValue, ResponseEnd, ResponseHead, ResponseHook, Termination};
pub use slots::{Reservation, Slot, SlotId, SlotTable};
pub use snapshot::Snapshot;
