//! What the installation decides, not the resource.

/// Settings of an installation that reach the rendered objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenderOptions {
    /// Namespace of resources that name none.
    pub namespace: String,
    /// Where our own images are: `<repository>/llmd`, `<repository>/llmd-epp`.
    pub image_repository: String,
    /// Tag of our own images.
    pub image_tag: String,
    /// Whether to write an InferencePool. Without it the Endpoint Picker selects pods by label, and
    /// no foreign CRD is needed.
    pub inference_pool: bool,
    /// User and group of all pods; images whose own user is root need one. `None` leaves them out, for clusters
    /// that assign users themselves (`OpenShift`).
    pub run_as_user: Option<i64>,
}

impl Default for RenderOptions {
    fn default() -> Self {
        Self {
            namespace: "default".to_owned(),
            image_repository: "ghcr.io/llmd-dev".to_owned(),
            image_tag: format!("v{}", env!("CARGO_PKG_VERSION")),
            inference_pool: true,
            // The one of distroless images.
            run_as_user: Some(65_532),
        }
    }
}

impl RenderOptions {
    /// Reference of one of our images.
    pub(crate) fn image(&self, name: &str) -> String {
        format!("{}/{name}:{}", self.image_repository, self.image_tag)
    }
}
