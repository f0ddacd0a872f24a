//! The operator that runs on the cluster, as far as its Deployment tells.

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, ListParams};
use llmd_render::RenderOptions;
use serde::Serialize;

use super::Session;
use super::diff::serves;
use crate::exit::Failure;

/// Label of the operator's Deployment in our chart.
const SELECTOR: &str = "app.kubernetes.io/name=llmd-operator";

/// One operator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Installation {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) image: String,
    pub(crate) ready: i32,
    /// The program's flags.
    pub(crate) args: Vec<String>,
}

impl Installation {
    /// The operator that watches the session's namespace. `None` when there is none, or when the user may not look.
    pub(crate) async fn find(session: &Session) -> Option<Self> {
        let list = ListParams::default().labels(SELECTOR);
        let all = Api::<Deployment>::all(session.client.clone()).list(&list).await;
        let found = match all {
            Ok(found) => found.items,
            Err(_) => {
                Api::<Deployment>::namespaced(session.client.clone(), &session.namespace)
                    .list(&list)
                    .await
                    .ok()?
                    .items
            }
        };
        found
            .into_iter()
            .filter_map(Self::read)
            .find(|one| one.watches(&session.namespace))
    }

    fn read(deployment: Deployment) -> Option<Self> {
        let container = deployment.spec?.template.spec?.containers.into_iter().next()?;
        Some(Self {
            namespace: deployment.metadata.namespace?,
            name: deployment.metadata.name?,
            image: container.image.unwrap_or_default(),
            ready: deployment
                .status
                .and_then(|status| status.ready_replicas)
                .unwrap_or(0),
            args: container.args.unwrap_or_default(),
        })
    }

    fn flag(&self, name: &str) -> Option<&str> {
        self.args
            .iter()
            .find_map(|arg| arg.strip_prefix("--")?.strip_prefix(name)?.strip_prefix('='))
    }

    fn watches(&self, namespace: &str) -> bool {
        self.flag("namespaces")
            .is_none_or(|list| list.is_empty() || list.split(',').any(|one| one == namespace))
    }

    /// What the operator passes to the renderer.
    pub(crate) fn render_options(&self) -> RenderOptions {
        llmd_operator::render_options(|name| self.flag(name).map(str::to_owned))
    }
}

/// What the operator of the session's namespace renders with; the defaults where there is none.
///
/// # Errors
/// When the API server does not say what it serves.
pub(crate) async fn render_options(session: &Session) -> Result<RenderOptions, Failure> {
    let installed = Installation::find(session).await;
    Ok(RenderOptions {
        namespace: session.namespace.clone(),
        inference_pool: serves(session, "inference.networking.k8s.io", "v1", "InferencePool").await?,
        ..installed.map_or_else(RenderOptions::default, |one| one.render_options())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_say_what_is_watched_and_rendered() {
        let one = Installation {
            args: ["operator", "--namespaces=a,b", "--image-tag=v9", "--run-as-user="]
                .map(str::to_owned)
                .to_vec(),
            ..Installation::default()
        };
        assert!(one.watches("b") && !one.watches("c"));
        assert!(Installation::default().watches("c"));
        let defaults = RenderOptions::default();
        let options = one.render_options();
        assert!(defaults.run_as_user.is_some() && options.run_as_user.is_none());
        assert_eq!(options.image_tag, "v9");
        assert_eq!(options.image_repository, defaults.image_repository);
    }
}
