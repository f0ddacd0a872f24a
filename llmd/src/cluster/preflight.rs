//! `llmd preflight`: whether a cluster has what a deployment needs. Nothing is written.

mod accelerators;
mod admission;
mod claims;
mod versions;

use std::path::PathBuf;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use clap::Args;
use k8s_openapi::api::apps::v1::Deployment;
use llmd_render::Object;
use serde::Serialize;

use super::diff::supply;
use super::installation;
use super::{ClusterArgs, Session};
use crate::documents::Documents;
use crate::exit::{self, Failure};
use crate::output::{self, Format};

/// `llmd preflight`.
#[derive(Debug, Args)]
pub(crate) struct PreflightArgs {
    /// Files with `LLMDeployment`s, `-` for standard input; may be repeated
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    /// Output format
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Format,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// As it should be.
    Ok,
    /// It will work, but not as one would expect.
    Warning,
    /// It will not work.
    Failed,
    /// The user may not look.
    Unknown,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(clippy::struct_field_names, reason = "the field is a name of the stable JSON")]
pub(crate) struct Check {
    /// What was looked at.
    pub(crate) check: &'static str,
    pub(crate) verdict: Verdict,
    pub(crate) found: String,
    /// What to do; empty when there is nothing to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) fix: String,
}

impl Check {
    pub(crate) fn new(
        check: &'static str,
        verdict: Verdict,
        found: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            check,
            verdict,
            found: found.into(),
            fix: fix.into(),
        }
    }

    pub(crate) fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self::new(check, Verdict::Ok, found, "")
    }

    /// For what the user may not read.
    pub(crate) fn unknown(check: &'static str, error: &kube::Error) -> Self {
        let found = match error {
            kube::Error::Api(status) => status.message.clone(),
            other => other.to_string(),
        };
        Self::new(
            check,
            Verdict::Unknown,
            found,
            "run it as a user who may read this",
        )
    }
}

/// Checks of one document, with the place it was read from.
#[derive(Serialize)]
struct Report {
    source: String,
    namespace: String,
    checks: Vec<Check>,
}

/// Prints the checks; exit code 1 when one failed.
pub(crate) async fn preflight(args: &PreflightArgs) -> Result<ExitCode, Failure> {
    let mut documents = Documents::read(&args.files)?;
    if documents.deployments.is_empty() {
        return Err(Failure::usage(
            "no LLMDeployment in the files: there is nothing to check",
        ));
    }
    let session = args.cluster.connect().await?;
    supply(&session, &mut documents).await?;
    let mut reports = Vec::new();
    for (source, deployment) in &documents.deployments {
        let namespace = deployment.metadata.namespace.clone();
        let session = Session {
            client: session.client.clone(),
            namespace: namespace.unwrap_or_else(|| session.namespace.clone()),
        };
        let validated = documents
            .validate(deployment, &session.namespace, None)
            .map_err(|errors| {
                Failure::input(errors.iter().map(|error| format!("{source}: {error}")).collect())
            })?;
        let options = installation::render_options(&session).await?;
        let objects = llmd_render::render(&validated.deployment, &options).objects;
        reports.push(Report {
            source: source.clone(),
            checks: checks(&session, &objects).await?,
            namespace: session.namespace,
        });
    }
    show(&reports, args.output)?;
    let failed = reports
        .iter()
        .flat_map(|report| &report.checks)
        .any(|check| check.verdict == Verdict::Failed);
    Ok(ExitCode::from(if failed { exit::DIFFERENT } else { exit::OK }))
}

async fn checks(session: &Session, objects: &[Object]) -> Result<Vec<Check>, Failure> {
    let workloads: Vec<&Deployment> = objects
        .iter()
        .filter_map(|object| match object {
            Object::Deployment(one) => Some(&**one),
            _ => None,
        })
        .collect();
    let mut checks = versions::check(session, objects).await?;
    checks.extend(accelerators::check(session, &workloads).await?);
    checks.extend(claims::check(session, &workloads).await?);
    checks.extend(admission::check(session, &workloads).await?);
    Ok(checks)
}

fn show(reports: &[Report], format: Format) -> Result<(), Failure> {
    if format != Format::Table {
        return output::print_value(&reports, format);
    }
    for report in reports {
        output::print(&format!("{} in namespace {}\n", report.source, report.namespace))?;
        for check in &report.checks {
            let (word, color) = match check.verdict {
                Verdict::Ok => ("ok", AnsiColor::Green),
                Verdict::Warning => ("warning", AnsiColor::Yellow),
                Verdict::Failed => ("failed", AnsiColor::Red),
                Verdict::Unknown => ("unknown", AnsiColor::Yellow),
            };
            let style = Style::new().fg_color(Some(color.into()));
            output::print(&format!(
                "  {style}{word:<8}{style:#} {}: {}\n",
                check.check, check.found
            ))?;
            if !check.fix.is_empty() {
                output::print(&format!("           fix: {}\n", check.fix))?;
            }
        }
    }
    Ok(())
}
