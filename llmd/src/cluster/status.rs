//! `llmd status`: why a deployment is as it is, from cause to effect.

use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DynamicObject};
use kube::runtime::{WatchStreamExt, watcher};

use super::kinds::{self, DEPLOYMENT_LABEL};
use super::observed::{Observed, look};
use super::{ClusterArgs, Session};
use crate::exit::{self, Failure};
use crate::output::{self, Format};

/// Changes within this time are shown together.
const DEBOUNCE: Duration = Duration::from_millis(300);
/// Events shown to people.
const EVENTS: usize = 8;

/// `llmd status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Name of the `LLMDeployment`
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    /// Print again whenever something changes, until interrupted
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// Output format
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Format,
}

/// Prints what is seen; exit code 1 while the deployment is not ready.
pub(crate) async fn status(args: &StatusArgs) -> Result<ExitCode, Failure> {
    let session = args.cluster.connect().await?;
    let mut seen = look(&session, &args.name).await?;
    show(&seen, args.output)?;
    if args.watch {
        let mut changes = changes(&session, &args.name);
        // one for the whole loop: a new one would not know of an interrupt that came while looking
        let interrupt = tokio::signal::ctrl_c();
        tokio::pin!(interrupt);
        loop {
            tokio::select! {
                _ = &mut interrupt => break,
                change = changes.next() => if change.is_none() { break },
            }
            // what comes right behind belongs to the same change
            let settle = tokio::time::sleep(DEBOUNCE);
            tokio::pin!(settle);
            loop {
                tokio::select! {
                    () = &mut settle => break,
                    _ = changes.next() => {}
                }
            }
            let now = look(&session, &args.name).await?;
            if now != seen {
                if args.output != Format::Json {
                    output::print("---\n")?;
                }
                show(&now, args.output)?;
                seen = now;
            }
        }
    }
    Ok(ExitCode::from(if seen.ready {
        exit::OK
    } else {
        exit::DIFFERENT
    }))
}

/// Yields whenever the resource or one of its pods changes.
fn changes(session: &Session, name: &str) -> futures_util::stream::BoxStream<'static, ()> {
    let resources: Api<DynamicObject> = Api::namespaced_with(
        session.client.clone(),
        &session.namespace,
        &kinds::ours("LLMDeployment"),
    );
    let pods: Api<Pod> = Api::namespaced(session.client.clone(), &session.namespace);
    let of_name = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let of_label = watcher::Config::default().labels(&format!("{DEPLOYMENT_LABEL}={name}"));
    futures_util::stream::select(
        watcher(resources, of_name)
            .default_backoff()
            .touched_objects()
            .map(|_| ()),
        watcher(pods, of_label)
            .default_backoff()
            .touched_objects()
            .map(|_| ()),
    )
    .boxed()
}

fn show(seen: &Observed, format: Format) -> Result<(), Failure> {
    match format {
        Format::Table => output::print(&text(seen)),
        other => output::print_value(seen, other),
    }
}

/// For people: the verdict, what it follows from, then the parts.
fn text(seen: &Observed) -> String {
    let mut out = String::new();
    let ready = if seen.ready { "ready" } else { "not ready" };
    // a String takes everything, so the results say nothing
    let _ = writeln!(out, "{}/{}: {ready} ({})", seen.namespace, seen.name, seen.reason);
    if !seen.message.is_empty() {
        let _ = writeln!(out, "  {}", seen.message);
    }
    if !seen.path.is_empty() {
        let _ = writeln!(out, "  path {}", seen.path);
    }
    if let Some(url) = &seen.url {
        let _ = writeln!(out, "  {url}");
    }
    let mut section = |title: &[&str], rows: Vec<Vec<String>>| {
        if !rows.is_empty() {
            let mut all = vec![title.iter().map(|&cell| cell.to_owned()).collect()];
            all.extend(rows);
            let _ = write!(out, "\n{}", output::columns(&all));
        }
    };
    section(
        &["CONDITION", "STATUS", "REASON", "MESSAGE"],
        seen.conditions
            .iter()
            .map(|one| {
                vec![
                    one.kind.clone(),
                    one.status.clone(),
                    one.reason.clone(),
                    one.message.clone(),
                ]
            })
            .collect(),
    );
    let cause = |cause: &Option<super::observed::Cause>| {
        cause
            .as_ref()
            .map(|cause| format!("{}: {}", cause.reason, cause.message))
            .unwrap_or_default()
    };
    section(
        &["WORKLOAD", "READY", "CAUSE"],
        seen.workloads
            .iter()
            .map(|one| {
                vec![
                    one.name.clone(),
                    format!("{}/{}", one.ready, one.desired),
                    cause(&one.cause),
                ]
            })
            .collect(),
    );
    section(
        &["POD", "STATE", "RESTARTS", "NODE", "CAUSE"],
        seen.pods
            .iter()
            .map(|one| {
                vec![
                    one.name.clone(),
                    match &one.step {
                        _ if one.ready => "Ready".to_owned(),
                        Some(step) => step.clone(),
                        None => one.phase.clone(),
                    },
                    one.restarts.to_string(),
                    one.node.clone().unwrap_or_else(|| "-".to_owned()),
                    cause(&one.cause),
                ]
            })
            .collect(),
    );
    let newest = seen.events.len().saturating_sub(EVENTS);
    section(
        &["EVENT", "REASON", "OBJECT", "MESSAGE"],
        seen.events[newest..]
            .iter()
            .map(|one| {
                vec![
                    one.time.clone(),
                    one.reason.clone(),
                    one.object.clone(),
                    one.message.clone(),
                ]
            })
            .collect(),
    );
    out
}
