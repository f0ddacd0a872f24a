//! `llmd diff`: what would change on the cluster, by the API server's own dry run.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use llmd_crds::{AcceleratorProfile, LLMDeployment, PathStatus, WellLitPath};
use llmd_render::{Object, RenderOptions};
use serde::Serialize;
use serde_json::Value;

use super::installation;
use super::{ClusterArgs, Session, api_failure, is_missing, kinds};
use crate::documents::Documents;
use crate::exit::{self, Failure};
use crate::output::{self, Format};

/// Field manager of the operator: the dry run is of its next apply.
const OPERATOR: &str = "llmd-operator";
/// Metadata that every write changes.
const VOLATILE: [&str; 5] = [
    "managedFields",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "uid",
];

/// `llmd diff`.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// `LLMDeployment` on the cluster, rendered by this version of the program
    #[arg(required_unless_present = "files", conflicts_with = "files")]
    pub(crate) name: Option<String>,
    /// Files with `LLMDeployment`s, `-` for standard input; may be repeated
    #[arg(short, long = "filename", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Show what a move to this version of the well-lit path would change
    #[arg(long, value_name = "VERSION")]
    pub(crate) to_path_version: Option<String>,
    /// Where our own images are; default: as the operator on the cluster has it
    #[arg(long, value_name = "REPOSITORY")]
    pub(crate) image_repository: Option<String>,
    /// Tag of our own images; default: as the operator on the cluster has it
    #[arg(long, value_name = "TAG")]
    pub(crate) image_tag: Option<String>,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    /// Output format
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Format,
}

/// One object that would not stay as it is.
#[derive(Serialize)]
struct Change {
    kind: String,
    namespace: String,
    name: String,
    /// `created`, `changed` or `deleted`.
    action: &'static str,
    /// A unified diff of YAML.
    diff: String,
}

/// Prints the differences; exit code 1 when there are any.
pub(crate) async fn diff(args: &DiffArgs) -> Result<ExitCode, Failure> {
    let session = args.cluster.connect().await?;
    let mut documents = match &args.name {
        None => Documents::read(&args.files)?,
        Some(name) => Documents::of(vec![stored(&session, name).await?]),
    };
    if documents.deployments.is_empty() {
        return Err(Failure::usage(
            "no LLMDeployment in the files: there is nothing to compare",
        ));
    }
    supply(&session, &mut documents).await?;
    let mut changes = Vec::new();
    for (source, deployment) in &documents.deployments {
        let mut deployment = deployment.clone();
        let namespace = deployment.metadata.namespace.clone();
        let session = Session {
            client: session.client.clone(),
            namespace: namespace.unwrap_or_else(|| session.namespace.clone()),
        };
        let used = pin(&session, &mut deployment, args.to_path_version.as_deref()).await?;
        let mut options = options(&session, args).await?;
        let kept = match &used {
            Some(used) => kept(&session, &deployment, used).await?,
            None => None,
        };
        let validated = documents
            .validate(&deployment, &session.namespace, kept.as_deref())
            .map_err(|errors| {
                Failure::input(errors.iter().map(|error| format!("{source}: {error}")).collect())
            })?;
        let path = &validated.deployment.path;
        options.engine_image_tag =
            used.and_then(|used| used.release_of(&path.name, &path.version).map(str::to_owned));
        let rendered = llmd_render::render(&validated.deployment, &options);
        let name = deployment.metadata.name.clone().unwrap_or_default();
        changes.extend(compare(&session, &name, &rendered.objects).await?);
    }
    match args.output {
        Format::Table => {
            for change in &changes {
                output::print(&change.diff)?;
            }
        }
        other => output::print_value(&changes, other)?,
    }
    Ok(ExitCode::from(if changes.is_empty() {
        exit::OK
    } else {
        exit::DIFFERENT
    }))
}

/// The resource as this version decodes it.
async fn stored(session: &Session, name: &str) -> Result<(String, LLMDeployment), Failure> {
    let live = kinds::deployment(session, name).await?;
    let value = serde_json::to_value(&live).map_err(Failure::runtime)?;
    let deployment = serde_json::from_value(value)
        .map_err(|error| Failure::usage(format!("LLMDeployment/{name} does not decode: {error}")))?;
    Ok((format!("LLMDeployment/{name}"), deployment))
}

/// Paths and profiles of the cluster; without the definitions or the permission the built-in ones are all there is.
pub(crate) async fn supply(session: &Session, documents: &mut Documents) -> Result<(), Failure> {
    let all = ListParams::default();
    let paths = Api::<WellLitPath>::all(session.client.clone()).list(&all).await;
    let profiles = Api::<AcceleratorProfile>::all(session.client.clone())
        .list(&all)
        .await;
    for error in [paths.as_ref().err(), profiles.as_ref().err()]
        .into_iter()
        .flatten()
    {
        if !is_missing(error) && !super::is_forbidden(error) {
            return Err(api_failure("cannot list paths and profiles", error));
        }
    }
    documents.supply(
        paths.map(|list| list.items).unwrap_or_default(),
        profiles.map(|list| list.items).unwrap_or_default(),
    );
    Ok(())
}

/// Renders with the version that the operator pinned, unless the resource or the user names one; gives what is pinned.
async fn pin(
    session: &Session,
    deployment: &mut LLMDeployment,
    wanted: Option<&str>,
) -> Result<Option<PathStatus>, Failure> {
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    let resource = kinds::ours("LLMDeployment");
    let api: Api<DynamicObject> = Api::namespaced_with(session.client.clone(), &session.namespace, &resource);
    // without the definitions there is nothing that could be pinned
    let live = match api.get_opt(name).await {
        Err(error) if !is_missing(&error) => {
            return Err(api_failure("cannot read the LLMDeployment", &error));
        }
        live => live.ok().flatten(),
    };
    let used: Option<PathStatus> =
        live.and_then(|live| serde_json::from_value(live.data["status"]["path"].clone()).ok());
    let spec = &mut deployment.spec;
    if wanted.is_some() {
        spec.path_version = wanted.map(str::to_owned);
    } else if spec.path_version.is_none()
        && let Some(used) = &used
        && spec.path.as_ref().is_none_or(|path| *path == used.name)
    {
        spec.path = Some(used.name.clone());
        spec.path_version = Some(used.version.clone());
    }
    Ok(used)
}

/// The text of the pinned path that the operator kept.
async fn kept(
    session: &Session,
    deployment: &LLMDeployment,
    used: &PathStatus,
) -> Result<Option<String>, Failure> {
    let deployment = deployment.metadata.name.as_deref().unwrap_or_default();
    let name = llmd_render::kept_path_name(deployment, &used.name, &used.version);
    let api: Api<ConfigMap> = Api::namespaced(session.client.clone(), &session.namespace);
    let found = api
        .get_opt(&name)
        .await
        .map_err(|error| api_failure(&format!("cannot read ConfigMap {name}"), &error))?;
    Ok(found.and_then(|kept| kept.data?.remove(llmd_render::KEPT_PATH_FILE)))
}

/// What the operator of the cluster renders with.
async fn options(session: &Session, args: &DiffArgs) -> Result<RenderOptions, Failure> {
    let mut options = installation::render_options(session).await?;
    if let Some(repository) = &args.image_repository {
        options.image_repository.clone_from(repository);
    }
    if let Some(tag) = &args.image_tag {
        options.image_tag.clone_from(tag);
    }
    Ok(options)
}

/// Whether the API server serves a kind.
pub(crate) async fn serves(
    session: &Session,
    group: &str,
    version: &str,
    kind: &str,
) -> Result<bool, Failure> {
    let resources = session
        .client
        .list_api_group_resources(&format!("{group}/{version}"))
        .await;
    match resources {
        Ok(list) => Ok(list.resources.iter().any(|resource| resource.kind == kind)),
        Err(error) if is_missing(&error) => Ok(false),
        Err(error) => Err(api_failure(&format!("cannot ask for {group}"), &error)),
    }
}

async fn compare(session: &Session, name: &str, objects: &[Object]) -> Result<Vec<Change>, Failure> {
    let mut changes = Vec::new();
    for object in objects {
        let mut wanted = object.to_value();
        let Some(resource) = kinds::of(&wanted) else {
            continue;
        };
        let api: Api<DynamicObject> =
            Api::namespaced_with(session.client.clone(), &session.namespace, &resource);
        let live = api.get_opt(object.name()).await.map_err(|error| {
            api_failure(
                &format!("cannot read {} {}", resource.kind, object.name()),
                &error,
            )
        })?;
        if let Some(owners) = live
            .as_ref()
            .and_then(|live| live.metadata.owner_references.clone())
        {
            // the operator sends them too; what it leaves out it would take away
            wanted["metadata"]["ownerReferences"] = serde_json::to_value(owners).map_err(Failure::runtime)?;
        }
        let mut dry = PatchParams::apply(OPERATOR).force();
        dry.dry_run = true;
        let next = api
            .patch(object.name(), &dry, &Patch::Apply(&wanted))
            .await
            .map_err(|error| {
                api_failure(
                    &format!("the API server refuses {} {}", resource.kind, object.name()),
                    &error,
                )
            })?;
        changes.extend(change(session, &resource, live.as_ref(), Some(&next)));
    }
    for (resource, live) in kinds::children(session, name).await? {
        let live_name = live.metadata.name.as_deref().unwrap_or_default();
        let is_wanted = objects
            .iter()
            .any(|object| object.kind() == resource.kind && object.name() == live_name);
        // what nobody owns, such as an InferencePool made by hand with our label, is not the operator's to delete
        if !is_wanted && live.metadata.owner_references.is_some() {
            changes.extend(change(session, &resource, Some(&live), None));
        }
    }
    Ok(changes)
}

fn change(
    session: &Session,
    resource: &ApiResource,
    live: Option<&DynamicObject>,
    next: Option<&DynamicObject>,
) -> Option<Change> {
    let before = live.map(text).unwrap_or_default();
    let after = next.map(text).unwrap_or_default();
    if before == after {
        return None;
    }
    let name = live.or(next)?.metadata.name.clone().unwrap_or_default();
    let label = format!("{}/{name}", resource.kind);
    let mut diff = String::new();
    // a String takes everything
    let _ = write!(
        diff,
        "{}",
        similar::TextDiff::from_lines(&before, &after)
            .unified_diff()
            .header(&format!("live {label}"), &format!("next {label}"))
    );
    Some(Change {
        kind: resource.kind.clone(),
        namespace: session.namespace.clone(),
        name,
        action: match (live, next) {
            (None, _) => "created",
            (_, None) => "deleted",
            _ => "changed",
        },
        diff,
    })
}

/// An object without what every write changes.
fn text(object: &DynamicObject) -> String {
    let mut value = serde_json::to_value(object).unwrap_or(Value::Null);
    if let Some(members) = value.as_object_mut() {
        members.remove("status");
        if let Some(metadata) = members.get_mut("metadata").and_then(Value::as_object_mut) {
            for volatile in VOLATILE {
                metadata.remove(volatile);
            }
        }
    }
    serde_yaml::to_string(&value).unwrap_or_default()
}
