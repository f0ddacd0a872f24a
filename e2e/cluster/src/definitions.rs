//! CustomResourceDefinitions: ours from the crate, foreign ones from their modules.

use std::path::PathBuf;

use futures_util::future::try_join_all;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};

use crate::poll::poll_until;
use crate::tool;

/// Applies folders of definitions and waits until all are served.
pub(crate) async fn apply_folders(
    kubectl: impl Fn() -> tokio::process::Command,
    folders: &[PathBuf],
) -> anyhow::Result<()> {
    if folders.is_empty() {
        return Ok(());
    }
    // not concatenated: some files lack the leading `---` and would melt into the one before
    let mut apply = kubectl();
    apply.args(["apply", "--server-side", "--field-manager=llmd-e2e"]);
    for folder in folders {
        apply.arg("-f").arg(folder);
    }
    tool::run(apply, None).await?;
    let mut wait = kubectl();
    wait.args([
        "wait",
        "--for=condition=Established",
        "crd",
        "--all",
        "--timeout=60s",
    ]);
    tool::run(wait, None).await?;
    Ok(())
}

/// Applies the definitions of our kinds and waits until all are served.
pub(crate) async fn apply_ours(client: &Client) -> anyhow::Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let definitions = llmd_crds::all();
    let params = PatchParams::apply("llmd-e2e").force();
    let (api, params) = (&api, &params);
    try_join_all(definitions.iter().map(|definition| async move {
        let name = definition.name_any();
        api.patch(&name, params, &Patch::Apply(definition)).await?;
        poll_until(&format!("definition {name}"), || async {
            let definition = api.get(&name).await.ok()?;
            let conditions = definition.status?.conditions?;
            conditions
                .iter()
                .any(|condition| condition.type_ == "Established" && condition.status == "True")
                .then_some(())
        })
        .await
    }))
    .await?;
    Ok(())
}
