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
    /// Tag of our own images in the pods of engines, where it is not [`image_tag`](Self::image_tag): that of the
    /// release that rendered them first, because an upgrade restarts no engine.
    pub engine_image_tag: Option<String>,
    /// Whether to write an InferencePool. Without it the Endpoint Picker selects pods by label, and
    /// no foreign CRD is needed.
    pub inference_pool: bool,
    /// User and group of all pods; images whose own user is root need one. `None` leaves them out, for clusters
    /// that assign users themselves (`OpenShift`).
    pub run_as_user: Option<i64>,
    /// Registry, with a path or not, that the default images of Envoy and the engines come from in place of the one
    /// in their names. An image that a resource names is taken as it is.
    pub mirror: Option<String>,
    /// How engines reach what is outside of the cluster.
    pub egress: Egress,
}

/// How engines reach what is outside of the cluster: model hubs, mostly. Routers reach only what is inside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Egress {
    /// URL of the proxy for `http://`.
    pub http_proxy: Option<String>,
    /// URL of the proxy for `https://`.
    pub https_proxy: Option<String>,
    /// Hosts that are reached without a proxy, with commas; those of the cluster are added.
    pub no_proxy: Option<String>,
    /// Certificate authorities in place of the image's own.
    pub ca_bundle: Option<CaBundle>,
}

/// A ConfigMap with certificate authorities (PEM), in the namespace of each deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaBundle {
    /// Name of the ConfigMap.
    pub config_map: String,
    /// Key in it.
    pub key: String,
}

impl Default for RenderOptions {
    fn default() -> Self {
        Self {
            namespace: "default".to_owned(),
            image_repository: "ghcr.io/llmd-dev".to_owned(),
            image_tag: format!("v{}", env!("CARGO_PKG_VERSION")),
            engine_image_tag: None,
            inference_pool: true,
            // The one of distroless images.
            run_as_user: Some(65_532),
            mirror: None,
            egress: Egress::default(),
        }
    }
}

impl RenderOptions {
    /// A default image of somebody else, from the mirror where there is one.
    pub(crate) fn mirrored(&self, image: &str) -> String {
        let Some(mirror) = &self.mirror else {
            return image.to_owned();
        };
        let path = match image.split_once('/') {
            // As container runtimes tell a registry from a folder of Docker Hub.
            Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => path,
            _ => image,
        };
        format!("{}/{path}", mirror.trim_end_matches('/'))
    }

    /// Reference of one of our images.
    pub(crate) fn image(&self, name: &str) -> String {
        format!("{}/{name}:{}", self.image_repository, self.image_tag)
    }

    /// Reference of one of our images in the pod of an engine.
    pub(crate) fn engine_image(&self, name: &str) -> String {
        let tag = self.engine_image_tag.as_ref().unwrap_or(&self.image_tag);
        format!("{}/{name}:{tag}", self.image_repository)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_takes_the_place_of_the_registry() {
        let options = RenderOptions {
            mirror: Some("mirror.example:5000/cache/".to_owned()),
            ..RenderOptions::default()
        };
        for (image, expected) in [
            (
                "docker.io/vllm/vllm-openai:v1",
                "mirror.example:5000/cache/vllm/vllm-openai:v1",
            ),
            (
                "vllm/vllm-tpu@sha256:1",
                "mirror.example:5000/cache/vllm/vllm-tpu@sha256:1",
            ),
            ("localhost/x:1", "mirror.example:5000/cache/x:1"),
        ] {
            assert_eq!(options.mirrored(image), expected);
        }
        assert_eq!(
            RenderOptions::default().mirrored("docker.io/a/b"),
            "docker.io/a/b"
        );
    }
}
