//! Sources that tell of changes instead of being polled.
//!
//! Upstream's extractors for them are `topology-extractor`, for endpoints, and none for objects of Kubernetes. Ours
//! reads endpoints when they are needed, so that such a source has nothing to do and only its use is checked.

/// What a source tells of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notification {
    /// Endpoints that come, change and go.
    Endpoints,
    /// Objects of one kind.
    Objects {
        /// API group; empty for the core's.
        group: String,
        /// API version.
        version: String,
        /// Kind.
        kind: String,
    },
}
