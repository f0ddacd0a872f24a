//! The operator that runs on the cluster, as far as its Deployment tells.

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, ListParams};
use llmd_render::RenderOptions;
use serde::Serialize;

use super::Session;

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

    /// What the operator passes to the renderer, where its flags say so.
    pub(crate) fn apply_to(&self, options: &mut RenderOptions) {
        if let Some(repository) = self.flag("image-registry") {
            repository.clone_into(&mut options.image_repository);
        }
        if let Some(tag) = self.flag("image-tag") {
            tag.clone_into(&mut options.image_tag);
        }
        if let Some(user) = self.flag("run-as-user") {
            options.run_as_user = user.parse().ok();
        }
    }
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
        let mut options = RenderOptions::default();
        assert!(options.run_as_user.is_some());
        let repository = options.image_repository.clone();
        one.apply_to(&mut options);
        assert_eq!(options.run_as_user, None);
        assert_eq!(
            (options.image_tag.as_str(), options.image_repository),
            ("v9", repository)
        );
    }
}
