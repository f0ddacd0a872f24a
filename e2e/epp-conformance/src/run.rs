//! Runs cases: those with an equal set-up one after the other on one picker, set-ups beside each other.

mod play;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::case::{Profile, Selected, Start};
use crate::check::either;
use crate::report::{CaseReport, Verdict};
use crate::rig::{Binary, Refused, Rig, Running};

/// Lines of a picker's log in a failure.
const SHOWN_LINES: usize = 15;
/// How pickers say that they lack something.
const LACKS: [&str; 4] = [
    "is not registered",
    "not available in this build",
    "not supported by this build",
    "unknown flag",
];

/// What is tested.
#[derive(Clone, Debug)]
pub enum Target {
    /// Started for each set-up.
    Binary(Binary),
    /// Runs already; only portable cases can be played.
    Running(Running),
}

/// How cases are run.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is tested.
    pub target: Target,
    /// Whose ways are accepted.
    pub profile: Profile,
    /// Pickers at a time.
    pub jobs: usize,
    /// Longest wait for an answer that must come; [`crate::stream::PATIENCE`] is a good one.
    pub patience: Duration,
}

/// Runs all cases.
pub async fn run(cases: Vec<Selected>, options: Options) -> anyhow::Result<Vec<CaseReport>> {
    let options = Arc::new(options);
    let permits = Arc::new(Semaphore::new(options.jobs.max(1)));
    let mut tasks = JoinSet::new();
    for batch in batches(cases) {
        let (options, permits) = (Arc::clone(&options), Arc::clone(&permits));
        tasks.spawn(async move {
            let _permit = permits.acquire().await.context("the run is over")?;
            run_batch(batch, &options).await
        });
    }
    let mut reports = Vec::new();
    while let Some(batch) = tasks.join_next().await {
        reports.extend(batch.context("a batch broke off")??);
    }
    Ok(reports)
}

/// Cases that share a picker.
fn batches(cases: Vec<Selected>) -> Vec<Vec<Selected>> {
    let mut batches: Vec<Vec<Selected>> = Vec::new();
    for case in cases {
        let shared = batches
            .iter_mut()
            .find(|batch| !case.setup.is_own && batch[0].setup == case.setup);
        match shared {
            Some(batch) => batch.push(case),
            None => batches.push(vec![case]),
        }
    }
    batches
}

async fn run_batch(batch: Vec<Selected>, options: &Options) -> anyhow::Result<Vec<CaseReport>> {
    let setup = &batch[0].setup;
    let started = match &options.target {
        Target::Running(_) if !setup.is_portable() || setup.is_own => {
            let reason = "needs a picker that is started for it (`--epp-binary`)";
            return Ok(all(
                batch,
                &Verdict::Skipped {
                    reason: reason.to_owned(),
                },
            ));
        }
        Target::Running(running) => Ok(Rig::running(running).await?),
        Target::Binary(binary) => Rig::start(binary, setup).await?,
    };
    let mut rig = match started {
        Ok(rig) => rig,
        Err(refused) => {
            return Ok(batch
                .into_iter()
                .map(|case| {
                    let verdict = refused_verdict(&case, &refused, options.profile);
                    report(case, verdict)
                })
                .collect());
        }
    };
    let mut reports = Vec::new();
    for case in batch {
        let played = play::play(&case, &rig, options).await;
        let (mut failures, variants) = match played {
            Ok(played) => played,
            Err(error) => (vec![format!("{error:#}")], BTreeSet::default()),
        };
        if let Some(status) = rig.ended()? {
            failures.push(format!("the picker ended: {status}"));
        }
        if !failures.is_empty() {
            failures.extend(last_lines(&rig.log()));
        }
        let mut report = report(case, verdict(failures));
        report.variants = variants;
        reports.push(report);
    }
    Ok(reports)
}

fn verdict(failures: Vec<String>) -> Verdict {
    if failures.is_empty() {
        Verdict::Passed
    } else {
        Verdict::Failed { failures }
    }
}

/// A picker that did not come up: what a case wanted, something the picker lacks, or a failure.
fn refused_verdict(case: &Selected, refused: &Refused, profile: Profile) -> Verdict {
    if let Some(expected) = &case.case.start {
        let outcome = either(expected, profile, |start| match start {
            Start::Refuses(texts) => refusal(refused, texts),
            Start::Serves | Start::Warns(_) => vec!["the picker does not start".to_owned()],
        });
        if outcome.is_ok() {
            return Verdict::Passed;
        }
        let mut failures = outcome.err().unwrap_or_default();
        failures.extend(last_lines(&refused.log));
        return Verdict::Failed { failures };
    }
    let lacks = refused
        .log
        .iter()
        .find(|line| refused.status.is_some() && LACKS.iter().any(|lack| line.contains(lack)));
    if let Some(line) = lacks {
        return Verdict::Unsupported { reason: line.clone() };
    }
    let how = refused.status.map_or_else(
        || "is not ready in time".to_owned(),
        |status| format!("ended with {status}"),
    );
    let mut failures = vec![format!("the picker {how}")];
    failures.extend(last_lines(&refused.log));
    Verdict::Failed { failures }
}

fn refusal(refused: &Refused, texts: &[String]) -> Vec<String> {
    let Some(status) = refused.status else {
        return vec!["the picker neither serves nor ends".to_owned()];
    };
    if status.success() {
        return vec!["the picker ends as if nothing were wrong".to_owned()];
    }
    let log = refused.log.join("\n");
    let missing = texts.iter().filter(|text| !log.contains(*text));
    missing
        .map(|text| format!("the refusal does not say `{text}`"))
        .collect()
}

fn last_lines(log: &[String]) -> impl Iterator<Item = String> {
    let lines = &log[log.len().saturating_sub(SHOWN_LINES)..];
    lines.iter().map(|line| format!("log: {line}"))
}

fn all(batch: Vec<Selected>, verdict: &Verdict) -> Vec<CaseReport> {
    batch
        .into_iter()
        .map(|case| report(case, verdict.clone()))
        .collect()
}

fn report(case: Selected, verdict: Verdict) -> CaseReport {
    CaseReport {
        name: case.id,
        sheet: case.case.sheet,
        verdict,
        variants: BTreeSet::default(),
    }
}
