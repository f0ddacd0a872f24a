//! `llmd bundle`: one archive for a bug report. No Secrets, no values of environment variables, no engine logs.

mod redact;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams, LogParams};
use serde::Serialize;
use serde_json::{Value, json};

use super::installation::Installation;
use super::kinds::{self, DEPLOYMENT_LABEL};
use super::observed::look;
use super::tar::Archive;
use super::{ClusterArgs, Session};
use crate::exit::{self, Failure};
use crate::output;

/// Last lines of each log.
const LINES: i64 = 2000;
/// Most time for one log or one metrics page.
const PATIENCE: Duration = Duration::from_secs(10);
/// Containers whose program is ours and whose log never holds a prompt.
const OUR_CONTAINERS: [&str; 2] = ["epp", "operator"];
/// Port of the Endpoint Picker's metrics.
const EPP_METRICS: &str = "9090";
/// Port of the operator's metrics.
const OPERATOR_METRICS: &str = "8080";

/// `llmd bundle`.
#[derive(Debug, Args)]
pub(crate) struct BundleArgs {
    /// Name of the `LLMDeployment`
    pub(crate) name: String,
    /// Archive to write; default: `llmd-bundle-NAMESPACE-NAME.tar.gz`
    #[arg(short = 'f', long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
}

/// What goes into the archive.
struct Bundle {
    archive: Archive,
    root: String,
    modified: u64,
    /// What could not be had, in words.
    missing: Vec<String>,
}

impl Bundle {
    fn add(&mut self, path: &str, content: &str) -> Result<(), Failure> {
        self.archive
            .add(
                &format!("{}/{path}", self.root),
                content.as_bytes(),
                self.modified,
            )
            .map_err(Failure::runtime)
    }

    fn add_yaml(&mut self, path: &str, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_yaml::to_string(value).map_err(Failure::runtime)?;
        self.add(path, &text)
    }
}

/// Writes the archive and says where it is.
pub(crate) async fn bundle(args: &BundleArgs) -> Result<ExitCode, Failure> {
    let session = args.cluster.connect().await?;
    let root = format!("llmd-bundle-{}-{}", session.namespace, args.name);
    let file = args
        .file
        .clone()
        .unwrap_or_else(|| PathBuf::from(format!("{root}.tar.gz")));
    let mut bundle = Bundle {
        archive: Archive::new(),
        root,
        modified: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs()),
        missing: Vec::new(),
    };
    collect(&session, &args.name, &mut bundle).await?;
    let missing = bundle.missing.join("\n");
    bundle.add("missing.txt", &missing)?;
    let bytes = bundle.archive.finish().map_err(Failure::runtime)?;
    std::fs::write(&file, &bytes)
        .map_err(|error| Failure::runtime(format!("cannot write {}: {error}", file.display())))?;
    output::print(&format!(
        "wrote {} ({} KiB). It holds no Secrets and no values of environment variables; look through it before you \
         send it: names of models, nodes and images are in it.\n",
        file.display(),
        bytes.len().div_ceil(1024)
    ))?;
    Ok(ExitCode::from(exit::OK))
}

async fn collect(session: &Session, name: &str, bundle: &mut Bundle) -> Result<(), Failure> {
    let deployment = kinds::deployment(session, name).await?;
    let value = serde_json::to_value(&deployment).map_err(Failure::runtime)?;
    bundle.add_yaml("llmdeployment.yaml", &redact::object(value))?;
    let seen = look(session, name).await?;
    bundle.add_yaml("status.yaml", &seen)?;
    for (resource, object) in kinds::children(session, name).await? {
        let path = format!(
            "objects/{}-{}.yaml",
            resource.kind.to_lowercase(),
            object.name_any()
        );
        let mut value = serde_json::to_value(&object).map_err(Failure::runtime)?;
        value["apiVersion"] = Value::from(resource.api_version.clone());
        value["kind"] = Value::from(resource.kind.clone());
        bundle.add_yaml(&path, &redact::object(value))?;
    }
    let installation = Installation::find(session).await;
    let version = session.client.apiserver_version().await;
    bundle.add_yaml(
        "versions.yaml",
        &json!({
            "llmd": env!("CARGO_PKG_VERSION"),
            "kubernetes": version.map(|version| version.git_version).unwrap_or_default(),
            "operator": installation,
        }),
    )?;
    let selector = format!("{DEPLOYMENT_LABEL}={name}");
    pods(session, &selector, EPP_METRICS, bundle).await?;
    if let Some(operator) = installation {
        let there = Session {
            client: session.client.clone(),
            namespace: operator.namespace,
        };
        pods(
            &there,
            "app.kubernetes.io/name=llmd-operator",
            OPERATOR_METRICS,
            bundle,
        )
        .await?;
    }
    Ok(())
}

/// Pods with the logs and metrics of our own programs.
async fn pods(session: &Session, selector: &str, port: &str, bundle: &mut Bundle) -> Result<(), Failure> {
    let api: Api<Pod> = Api::namespaced(session.client.clone(), &session.namespace);
    let list = match api.list(&ListParams::default().labels(selector)).await {
        Ok(list) => list.items,
        Err(error) => {
            bundle.missing.push(format!("pods with {selector}: {error}"));
            return Ok(());
        }
    };
    for pod in list {
        let name = pod.name_any();
        let value = serde_json::to_value(&pod).map_err(Failure::runtime)?;
        bundle.add_yaml(&format!("pods/{name}.yaml"), &redact::object(value))?;
        let containers = pod.spec.into_iter().flat_map(|spec| spec.containers);
        for container in containers.filter(|one| OUR_CONTAINERS.contains(&one.name.as_str())) {
            for previous in [false, true] {
                let file = format!(
                    "logs/{name}.{}{}.log",
                    container.name,
                    if previous { ".previous" } else { "" }
                );
                let parameters = LogParams {
                    container: Some(container.name.clone()),
                    tail_lines: Some(LINES),
                    timestamps: true,
                    previous,
                    ..LogParams::default()
                };
                match patient(api.logs(&name, &parameters)).await {
                    Ok(log) => bundle.add(&file, &log)?,
                    Err(why) if !previous => bundle.missing.push(format!("{file}: {why}")),
                    // no earlier run is the good case
                    Err(_) => {}
                }
            }
            let path = format!(
                "/api/v1/namespaces/{}/pods/{name}:{port}/proxy/metrics",
                session.namespace
            );
            let request = http::Request::get(path)
                .body(Vec::new())
                .map_err(Failure::runtime)?;
            match patient(session.client.request_text(request)).await {
                Ok(page) => bundle.add(&format!("metrics/{name}.txt"), &page)?,
                Err(why) => bundle.missing.push(format!("metrics/{name}.txt: {why}")),
            }
        }
    }
    Ok(())
}

async fn patient(answer: impl Future<Output = kube::Result<String>>) -> Result<String, String> {
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(Ok(text)) => Ok(text),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}
