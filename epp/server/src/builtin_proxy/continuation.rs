//! Continues streams whose engine died: keeps what is needed for a request for the rest.
//!
//! Applies to answers of one text from engines that take a begun answer back (vLLM, SGLang); see
//! `docs/design/0006-stream-continuation.md`.

use std::sync::Arc;

use bytes::Bytes;
use llmd_epp_api::Endpoint;
use llmd_epp_core::plugins::datalayer::core_metrics_extractor::{ENGINE_LABEL, ENGINE_LABEL_DEPRECATED};
use llmd_openai::BodyKind;
use llmd_openai::continuation::{self, NotContinuable, Seam, StreamFollower, continue_request};
use prometheus::{IntCounterVec, Opts, Registry};

use crate::body_budget::{BodyBudget, BodyLease};

/// Most memory for requests and answers that may have to be continued, in bytes.
const BUDGET: usize = 512 << 20;
/// Longest text so far that is continued, in bytes.
const LONGEST_TEXT: usize = 1 << 20;
/// The text's part of the budget grows in steps of this many bytes.
const TEXT_STEP: usize = 16 << 10;

/// What all requests share: the budget and the count of what came out.
#[derive(Clone)]
pub struct Continuations {
    budget: Arc<BodyBudget>,
    results: IntCounterVec,
}

impl Continuations {
    /// Registers `llmd_proxy_stream_continuations_total`.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let help =
            "Streams whose engine died, by how they went on: continued, completed, impossible, no_endpoint.";
        let opts = Opts::new("llmd_proxy_stream_continuations_total", help);
        let results = IntCounterVec::new(opts, &["result"])?;
        for result in ["continued", "completed", "impossible", "no_endpoint"] {
            results.with_label_values(&[result]);
        }
        registry.register(Box::new(results.clone()))?;
        Ok(Self {
            budget: Arc::new(BodyBudget::new(BUDGET)),
            results,
        })
    }

    pub(super) fn count(&self, result: &str) {
        self.results.with_label_values(&[result]).inc();
    }
}

/// How a broken stream goes on.
pub(super) enum Next {
    /// This body asks for the rest.
    Ask(Vec<u8>),
    /// These bytes complete it.
    Complete(Bytes),
    /// It cannot, for this reason.
    Impossible(String),
}

/// One stream that can be continued.
pub(super) struct Continuation {
    kind: BodyKind,
    request: Vec<Bytes>,
    answer: StreamFollower,
    seam: Option<Seam>,
    lease: BodyLease,
    leased_text: usize,
}

impl Continuation {
    /// Keeps `request`, a streaming one as it is sent to the engine. `None` when its answer has no text
    /// to continue or the memory for it is used up.
    pub(super) fn keep(shared: &Continuations, kind: Option<BodyKind>, request: &[Bytes]) -> Option<Self> {
        let kind = kind?;
        let answer = StreamFollower::new(kind, LONGEST_TEXT)?;
        let mut lease = BodyLease::new(Arc::clone(&shared.budget));
        // The parsed request, which the next pick needs, holds the prompt a second time.
        let bytes: usize = request.iter().map(Bytes::len).sum();
        lease.grow(2 * bytes).then(|| Self {
            kind,
            request: request.to_vec(),
            answer,
            seam: None,
            lease,
            leased_text: 0,
        })
    }

    /// Follows a chunk of the answer and returns it as it goes to the client.
    pub(super) fn pass(&mut self, chunk: Bytes, end: bool) -> Bytes {
        let chunk = match &mut self.seam {
            Some(seam) => seam.push(&chunk, end),
            None => chunk,
        };
        self.answer.observe(&chunk);
        while self.answer.text_len() > self.leased_text {
            if !self.lease.grow(TEXT_STEP) {
                self.answer.give_up("no memory is left to keep the text so far");
                break;
            }
            self.leased_text += TEXT_STEP;
        }
        chunk
    }

    /// The engine is gone. What follows is sewn to what the client has.
    pub(super) fn next(&mut self) -> Next {
        self.answer.broke();
        self.seam = None;
        if let Some(why) = self.answer.lost() {
            return Next::Impossible(why.to_owned());
        }
        if self.answer.is_done() {
            return Next::Complete(Bytes::new());
        }
        if self.answer.is_finished() {
            return Next::Complete(self.ending());
        }
        match continue_request(self.kind, &self.request.concat(), &self.answer) {
            Ok(request) => {
                self.seam = Some(Seam::after(&self.answer));
                Next::Ask(request)
            }
            Err(NotContinuable::AtCap) => Next::Complete(self.ending()),
            Err(why) => Next::Impossible(why.to_string()),
        }
    }

    fn ending(&self) -> Bytes {
        continuation::ending(self.kind, &self.answer, continuation::LENGTH)
    }
}

/// Whether an engine takes a begun answer back. One without a label is vLLM, as for its metrics.
pub(super) fn is_continued_by(endpoint: &Endpoint) -> bool {
    let engine = [ENGINE_LABEL, ENGINE_LABEL_DEPRECATED]
        .into_iter()
        .find_map(|label| endpoint.label(label));
    engine.is_none_or(|engine| matches!(engine, "" | "vllm" | "sglang"))
}
