//! `llmd crds apply`: brings definitions to a cluster.

use std::time::Duration;

use clap::{Args, ValueEnum};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::wait::{await_condition, conditions};
use serde::{Deserialize, Serialize};

use super::{ClusterArgs, api_failure};
use crate::exit::Failure;
use crate::output::{self, Format};

/// Most time for the API server to serve a definition.
const SERVED: Duration = Duration::from_secs(30);
/// Field manager of what people write with this program.
pub(crate) const MANAGER: &str = "llmd-cli";

/// Pinned definitions of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Foreign {
    /// Gateway API inference extension v1.5.0: `InferencePool`, `InferenceObjective`, `InferenceModelRewrite`
    Gaie,
    /// `LeaderWorkerSet` v0.9.0: `LeaderWorkerSet`, `DisaggregatedSet`
    Lws,
}

/// `llmd crds apply`.
#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    /// Definitions of others to apply as well
    #[arg(long, value_enum, value_delimiter = ',', value_name = "SET")]
    pub(crate) with: Vec<Foreign>,
    /// Output format
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Format,
}

/// One definition that is served now.
#[derive(Serialize)]
struct Applied {
    name: String,
    versions: Vec<String>,
}

/// Applies ours and the asked ones, and waits until they are served.
pub(crate) async fn apply(args: &ApplyArgs) -> Result<(), Failure> {
    let mut definitions = llmd_crds::all();
    for foreign in &args.with {
        definitions.extend(pinned(*foreign)?);
    }
    let session = args.cluster.connect().await?;
    let api: Api<CustomResourceDefinition> = Api::all(session.client);
    // forced: the chart or an older version of this program may own the fields, and there is one right content
    let parameters = PatchParams::apply(MANAGER).force();
    let mut applied = Vec::new();
    for definition in &definitions {
        let name = definition.metadata.name.clone().unwrap_or_default();
        api.patch(&name, &parameters, &Patch::Apply(definition))
            .await
            .map_err(|error| api_failure(&format!("cannot apply {name}"), &error))?;
        applied.push(Applied {
            versions: definition
                .spec
                .versions
                .iter()
                .map(|version| version.name.clone())
                .collect(),
            name,
        });
    }
    for one in &applied {
        let served = await_condition(api.clone(), &one.name, conditions::is_crd_established());
        match tokio::time::timeout(SERVED, served).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                return Err(Failure::runtime(format!("cannot watch {}: {error}", one.name)));
            }
            Err(_) => {
                return Err(Failure::runtime(format!(
                    "{} is stored, but not served after {} s: see `kubectl describe crd {}`",
                    one.name,
                    SERVED.as_secs(),
                    one.name
                )));
            }
        }
    }
    if args.output != Format::Table {
        return output::print_value(&applied, args.output);
    }
    let mut rows = vec![["NAME", "VERSIONS"].map(str::to_owned).to_vec()];
    rows.extend(
        applied
            .into_iter()
            .map(|one| vec![one.name, one.versions.join(",")]),
    );
    output::print(&output::columns(&rows))
}

/// The definitions that this program carries.
fn pinned(foreign: Foreign) -> Result<Vec<CustomResourceDefinition>, Failure> {
    let text = match foreign {
        Foreign::Gaie => llmd_crds::foreign::GAIE,
        Foreign::Lws => llmd_crds::foreign::LWS,
    };
    serde_yaml::Deserializer::from_str(text)
        .map(CustomResourceDefinition::deserialize)
        .collect::<Result<_, _>>()
        .map_err(|error| Failure::runtime(format!("a definition in this program is broken: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pinned_definition_decodes() {
        let names = |foreign| {
            pinned(foreign)
                .unwrap()
                .into_iter()
                .map(|definition| definition.spec.names.kind)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            names(Foreign::Gaie),
            ["InferencePool", "InferenceModelRewrite", "InferenceObjective"]
        );
        assert_eq!(names(Foreign::Lws), ["LeaderWorkerSet", "DisaggregatedSet"]);
    }
}
