//! From the bytes of a request to what plugins see of it.

use std::sync::Arc;
use std::time::Instant;

use llmd_epp_api::{ErrorCode, InferenceRequest, Objective, Rejection, Snapshot};
use llmd_openai::header;

use super::names::{self, Names};
use super::{DEFAULT_FLOW, Exchange, State};
use crate::request_metrics::RequestLabels;

impl Exchange {
    /// The request is complete: parses it. [`Self::on_request_end`] does so itself, unless this was called
    /// because the request has to wait before it is scheduled.
    ///
    /// # Errors
    /// The request is wrong, or a plugin refuses it.
    pub fn take_in(&mut self) -> Result<(), Rejection> {
        let outcome = self.parse().and_then(|mut request| {
            self.pipeline.scheduler.prepare(&mut request)?;
            let labels = RequestLabels {
                model: &request.incoming_model,
                target: &request.target_model,
                fairness_id: &request.objective.fairness_id,
                priority: request.objective.priority,
            };
            let recorder = self.epp.metrics.of(&labels);
            self.state = State::Parsed {
                request: Some(Box::new(request)),
                labels: recorder,
            };
            Ok(())
        });
        outcome.map_err(|rejection| self.rejected(rejection))
    }

    /// Whether a complete request may have to wait for others: ask [`Self::gather`] then.
    pub fn gathers(&self) -> bool {
        self.pipeline.scheduler.gathers()
    }

    /// The request is complete: lets plugins put it together with others. Returns until when it waits before
    /// [`Self::on_request_end`]. `snapshot` is the whole pool.
    ///
    /// # Errors
    /// Those of [`Self::take_in`], which is done where it was not.
    pub fn gather(&mut self, now: Instant, snapshot: &Snapshot) -> Result<Option<Instant>, Rejection> {
        if self.intake.is_some() {
            self.take_in()?;
        }
        let State::Parsed {
            request: Some(request),
            ..
        } = &mut self.state
        else {
            return Ok(None);
        };
        Ok(self.pipeline.scheduler.gather(now, request, snapshot))
    }

    fn parse(&mut self) -> Result<InferenceRequest, Rejection> {
        let already = || Rejection::new(ErrorCode::Internal, "the request was parsed already");
        let intake = self.intake.take().ok_or_else(already)?;
        let State::Receiving { headers, request_id } = &mut self.state else {
            return Err(already());
        };
        let mut parsed = intake.finish()?;
        self.decoded = parsed.decoded.take();
        let traffic = self.epp.traffic.load();
        let Names {
            incoming: incoming_model,
            target: target_model,
            rewritten_by,
        } = names::of(&parsed, headers, &traffic)?;
        if let Some(by) = rewritten_by {
            self.epp.metrics.rewritten(&by, &incoming_model, &target_model);
        }
        let objective = header::canonical_or_alias(header::OBJECTIVE, |name| headers.get(name));
        let fairness_id = header::canonical_or_alias(header::FAIRNESS_ID, |name| headers.get(name))
            .filter(|id| !id.is_empty())
            .unwrap_or(DEFAULT_FLOW)
            .into();
        Ok(InferenceRequest {
            request_id: Arc::clone(request_id),
            incoming_model,
            target_model,
            objective: Objective {
                priority: traffic.priority(objective),
                fairness_id,
            },
            headers: std::mem::take(headers),
            size_bytes: parsed.size_bytes,
            facts: parsed.facts,
            gathered: Vec::new(),
            tokens: None,
        })
    }
}
