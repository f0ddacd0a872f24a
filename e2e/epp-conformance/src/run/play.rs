//! Plays the steps of one case on a running picker.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Map, Value};
use tonic::Code;

use crate::case::{
    Call, End, MetricCheck, Profile, Response, ResponseEnd, Selected, Start, Step, Variant, substitute,
};
use crate::check::{self, Failures, Names, either};
use crate::exchange;
use crate::rig::Rig;
use crate::run::Options;
use crate::samples::{self, Sample};
use crate::stream::Stream;
use crate::transcript::{RequestTranscript, Stop};

/// Silence is believed after this much.
const SILENCE: Duration = Duration::from_secs(1);
/// Metrics may lag behind answers.
const METRICS_PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);

/// Requests of a run have ids of their own: some plugins keep state by request id.
static REQUESTS: AtomicU64 = AtomicU64::new(1);

/// A stream that waits for its response.
struct Held {
    stream: Stream,
    response: Option<Response>,
}

struct Play<'a> {
    case: &'a Selected,
    rig: &'a Rig,
    profile: Profile,
    patience: Duration,
    /// What `${name}` stands for.
    names: BTreeMap<String, String>,
    members: Vec<(String, String)>,
    held: BTreeMap<String, Held>,
    failures: Failures,
    variants: BTreeSet<Variant>,
}

/// Failures, and whose ways were met.
pub(super) async fn play(
    case: &Selected,
    rig: &Rig,
    options: &Options,
) -> anyhow::Result<(Failures, BTreeSet<Variant>)> {
    let members: Vec<(String, String)> = rig
        .members
        .iter()
        .map(|(name, address)| (name.clone(), address.to_string()))
        .collect();
    let mut names: BTreeMap<String, String> = members.iter().cloned().collect();
    for (name, address) in &rig.members {
        names.insert(format!("{name}.ip"), address.ip().to_string());
        names.insert(format!("{name}.port"), address.port().to_string());
    }
    let mut play = Play {
        case,
        rig,
        profile: options.profile,
        patience: options.patience,
        names,
        members,
        held: BTreeMap::new(),
        failures: Vec::new(),
        variants: BTreeSet::new(),
    };
    play.start();
    let before = play.samples().await?;
    for step in case.case.all_steps() {
        play.step(step).await?;
        if !play.failures.is_empty() {
            break;
        }
    }
    play.held.clear();
    if play.failures.is_empty() && !case.case.metrics.is_empty() {
        play.metrics(before.as_deref()).await?;
    }
    Ok((play.failures, play.variants))
}

impl Play<'_> {
    fn start(&mut self) {
        let Some(expected) = &self.case.case.start else {
            return;
        };
        let log = self.rig.log().join("\n");
        let outcome = either(expected, self.profile, |start| match start {
            Start::Serves => Vec::new(),
            Start::Refuses(texts) => vec![format!("the picker serves; it must refuse with {texts:?}")],
            Start::Warns(texts) => {
                let missing = texts.iter().filter(|text| !log.contains(*text));
                missing
                    .map(|text| format!("the log does not say `{text}`"))
                    .collect()
            }
        });
        self.take(outcome, "start");
    }

    async fn step(&mut self, step: Step) -> anyhow::Result<()> {
        match step {
            Step::Call(call) => self.calls(&call).await,
            Step::Set(changes) => self.rig.set(&changes).await,
            Step::Members(names) => self.rig.members_only(&names).await,
            Step::Finish(name) => {
                let held = self
                    .held
                    .remove(&name)
                    .with_context(|| format!("no held call is named {name}"))?;
                self.finish(&name, held).await
            }
        }
    }

    async fn calls(&mut self, call: &Call) -> anyhow::Result<()> {
        let name = call.name.clone().unwrap_or_else(|| "call".to_owned());
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for index in 1..=call.repeat {
            self.names.insert("i".to_owned(), index.to_string());
            let numbered = format!("{name}-{index}");
            let transcript = self.call(call, &name, &numbered).await?;
            if !self.failures.is_empty() {
                return Ok(());
            }
            let destination = transcript.destination().unwrap_or_default();
            let member = self.members.iter().find(|(_, address)| *address == destination);
            *counts
                .entry(member.map_or(destination.clone(), |(name, _)| name.clone()))
                .or_default() += 1;
        }
        let outcome = either(&call.spread, self.profile, |spread| uneven(spread, &counts));
        self.take(outcome, &name);
        Ok(())
    }

    async fn call(&mut self, call: &Call, name: &str, numbered: &str) -> anyhow::Result<RequestTranscript> {
        let mut call = call.clone();
        if !call.headers.contains_key("x-request-id") {
            let id = format!("conformance-{}", REQUESTS.fetch_add(1, Ordering::Relaxed));
            call.headers.insert("x-request-id".to_owned(), Value::String(id));
        }
        let is_silent = call
            .expect
            .accepted(self.profile)
            .iter()
            .any(|(_, outcome)| outcome.silent);
        let patience = if is_silent {
            SILENCE.min(self.patience)
        } else {
            self.patience
        };
        let mut stream = Stream::open(self.rig.channel());
        let names = self.names.clone();
        let resolve = |name: &str| names.get(name).cloned();
        let transcript = exchange::request(&mut stream, &call, &resolve, patience).await?;
        self.remember(name, numbered, &transcript);
        let names = Names {
            resolve: &resolve,
            members: &self.members,
        };
        let outcome = either(&call.expect, self.profile, |expected| {
            check::request::check(&transcript, expected, &names)
        });
        let extra: BTreeSet<String> = call
            .expect
            .accepted(self.profile)
            .iter()
            .filter_map(|(_, outcome)| outcome.route.as_ref())
            .flat_map(|route| route.headers.keys().map(|name| name.to_ascii_lowercase()))
            .collect();
        self.take(outcome, name);
        let broken = check::rules::request(&transcript, &extra);
        self.failures
            .extend(broken.into_iter().map(|rule| format!("{name}: {rule}")));
        let is_over = transcript.stop != Stop::Complete || transcript.immediate().is_some();
        if call.abort || is_over || call.end == End::Never {
            drop(stream);
        } else {
            let held = Held {
                stream,
                response: call.response.clone(),
            };
            if call.hold {
                self.held.insert(numbered.to_owned(), held);
            } else {
                self.finish(name, held).await?;
            }
        }
        Ok(transcript)
    }

    async fn finish(&mut self, name: &str, held: Held) -> anyhow::Result<()> {
        let Held { mut stream, response } = held;
        if let Some(response) = response {
            let names = self.names.clone();
            let resolve = |name: &str| names.get(name).cloned();
            let accepted = response.expect.accepted(self.profile);
            let patience = if accepted.iter().any(|(_, outcome)| outcome.held) {
                SILENCE.min(self.patience)
            } else {
                self.patience
            };
            let transcript = exchange::response(&mut stream, &response, &resolve, patience).await?;
            for (header, value) in transcript.set_headers() {
                self.names.insert(format!("{name}.response.{header}"), value);
            }
            let names = Names {
                resolve: &resolve,
                members: &self.members,
            };
            let outcome = either(&response.expect, self.profile, |expected| {
                check::response::check(&transcript, expected, &names)
            });
            self.take(outcome, name);
            let broken = check::rules::response(&transcript);
            self.failures
                .extend(broken.into_iter().map(|rule| format!("{name}: {rule}")));
            if transcript.stop != Stop::Complete
                || transcript.immediate().is_some()
                || response.end == ResponseEnd::Never
            {
                return Ok(());
            }
        }
        let (answers, stop) = exchange::close(&mut stream, self.patience).await;
        if !answers.is_empty() {
            self.failures.push(format!(
                "{name}: {} answers came that nothing asked for",
                answers.len()
            ));
        }
        if !matches!(&stop, Stop::Ended(Code::Ok, _)) {
            self.failures.push(format!(
                "{name}: the stream does not end well when the proxy closes it: {stop:?}"
            ));
        }
        Ok(())
    }

    fn remember(&mut self, name: &str, numbered: &str, transcript: &RequestTranscript) {
        for name in [name, numbered] {
            if let Some(destination) = transcript.destination() {
                self.names.insert(format!("{name}.destination"), destination);
            }
            for (header, value) in transcript.set_headers() {
                self.names.insert(format!("{name}.request.{header}"), value);
            }
        }
    }

    fn take(&mut self, outcome: Result<Option<Variant>, Failures>, name: &str) {
        match outcome {
            Ok(variant) => self.variants.extend(variant),
            Err(failures) => self
                .failures
                .extend(failures.into_iter().map(|failure| format!("{name}: {failure}"))),
        }
    }

    async fn samples(&self) -> anyhow::Result<Option<Vec<Sample>>> {
        if self.case.case.metrics.is_empty() {
            return Ok(None);
        }
        match self.rig.samples().await? {
            Some(samples) => Ok(Some(samples)),
            None => bail!("the case looks at metrics: give `--metrics`"),
        }
    }

    async fn metrics(&mut self, before: Option<&[Sample]>) -> anyhow::Result<()> {
        let end = Instant::now() + METRICS_PATIENCE;
        loop {
            let now = self.samples().await?.unwrap_or_default();
            let (mut failures, mut variants) = (Failures::new(), Vec::new());
            for expected in &self.case.case.metrics {
                let outcome = either(expected, self.profile, |wanted| {
                    let failure = self.metric(wanted, before.unwrap_or_default(), &now);
                    failure
                        .unwrap_or_else(|error| Some(format!("{error:#}")))
                        .into_iter()
                        .collect()
                });
                match outcome {
                    Ok(variant) => variants.extend(variant),
                    Err(wrong) => failures.extend(wrong),
                }
            }
            if failures.is_empty() {
                self.variants.extend(variants);
                return Ok(());
            }
            if Instant::now() > end {
                self.failures.extend(failures);
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn metric(
        &self,
        check: &MetricCheck,
        before: &[Sample],
        now: &[Sample],
    ) -> anyhow::Result<Option<String>> {
        let resolve = |name: &str| self.names.get(name).cloned();
        let labels = check
            .labels
            .iter()
            .map(|(label, value)| {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                Ok((label.clone(), substitute(&text, &resolve)?))
            })
            .collect::<anyhow::Result<Vec<(String, String)>>>()?;
        let name = &check.name;
        let after = samples::sum(now, name, &labels);
        let grown = after.unwrap_or_default() - samples::sum(before, name, &labels).unwrap_or_default();
        let is_equal = |a: f64, b: f64| (a - b).abs() < 1e-6;
        Ok(match (check.by, check.by_at_least, check.is) {
            (Some(by), _, _) if !is_equal(grown, by) => {
                Some(format!("{name}{labels:?} grew by {grown}, not {by}"))
            }
            (_, Some(least), _) if grown < least => {
                Some(format!("{name}{labels:?} grew by {grown}, less than {least}"))
            }
            (_, _, Some(wanted)) if !after.is_some_and(|after| is_equal(after, wanted)) => {
                Some(format!("{name}{labels:?} is {after:?}, not {wanted}"))
            }
            _ => None,
        })
    }
}

/// What is wrong with how often each member was chosen.
fn uneven(spread: &Map<String, Value>, counts: &BTreeMap<String, u64>) -> Failures {
    let mut failures = Failures::new();
    for (member, bounds) in spread {
        let Ok((least, most)) = serde_json::from_value::<(u64, u64)>(bounds.clone()) else {
            failures.push(format!("bounds of a spread are [least, most], not {bounds}"));
            continue;
        };
        let count = counts.get(member).copied().unwrap_or_default();
        if !(least..=most).contains(&count) {
            failures.push(format!(
                "{count} requests went to {member}, not {least} to {most}; all: {counts:?}"
            ));
        }
    }
    failures
}
