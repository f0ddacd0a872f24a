//! The steps around select-and-reserve: admission, screeners, admitters, and what comes after a pick.

use std::sync::PoisonError;
use std::time::Instant;

use llmd_epp_api::plugin::SchedulingResult;
use llmd_epp_api::{
    Cycle, ErrorCode, InferenceRequest, RejectReason, Rejection, RequestChanges, Snapshot, TypedName,
};

use super::Scheduler;
use super::metrics::Stopwatch;

impl Scheduler {
    /// Takes out the candidates that a screener does not want.
    pub(super) fn screen(
        &self,
        cycle: &Cycle<'_>,
        candidates: &mut Vec<u32>,
        watch: &mut Stopwatch<'_>,
    ) -> Result<(), Rejection> {
        if self.screeners.is_empty() {
            return Ok(());
        }
        let mut kept = vec![true; candidates.len()];
        let chance = self.chance.lock().unwrap_or_else(PoisonError::into_inner);
        for (timer, screener) in &self.screeners {
            screener.screen(cycle, candidates, &chance, &mut kept);
            timer.observe(watch.lap());
        }
        drop(chance);
        let mut kept = kept.into_iter();
        candidates.retain(|_| kept.next().unwrap_or(true));
        if candidates.is_empty() {
            let text = "screeners eliminated all endpoint candidates";
            return Err(
                Rejection::new(ErrorCode::ServiceUnavailable, text).because(RejectReason::NoEndpoints)
            );
        }
        Ok(())
    }

    pub(super) fn ask_admitters(
        &self,
        cycle: &Cycle<'_>,
        candidates: &[u32],
        watch: &mut Stopwatch<'_>,
    ) -> Result<(), Rejection> {
        if self.admitters.is_empty() {
            return Ok(());
        }
        let chance = self.chance.lock().unwrap_or_else(PoisonError::into_inner);
        for (timer, admitter) in &self.admitters {
            let refusal = admitter.refuse(cycle, candidates, &chance);
            timer.observe(watch.lap());
            if let Some(reason) = refusal {
                // Upstream answers 500 and loses what the plugin had in mind: that capacity is contended.
                let text = format!("request cannot be admitted: {reason}");
                return Err(
                    Rejection::new(ErrorCode::ResourceExhausted, text).because(RejectReason::Saturated)
                );
            }
        }
        Ok(())
    }

    pub(super) fn pre_request(
        &self,
        cycle: &Cycle<'_>,
        result: SchedulingResult<'_>,
        watch: &mut Stopwatch<'_>,
    ) -> Result<RequestChanges, Rejection> {
        let mut changes = RequestChanges::default();
        let mut failed: Vec<(&TypedName, Rejection)> = Vec::new();
        for ((timer, name), plugin) in &self.pre_requests {
            if let Err(rejection) = plugin.pre_request(cycle, result, &mut changes) {
                failed.push((name, rejection));
            }
            timer.observe(watch.lap());
        }
        match failed.len() {
            0 => Ok(changes),
            1 => Err(failed.remove(0).1),
            _ => {
                let texts: Vec<String> = failed
                    .iter()
                    .map(|(name, rejection)| format!("PreRequest \"{name}\" failed: {}", rejection.message))
                    .collect();
                Err(Rejection::new(ErrorCode::Internal, texts.join("\n")))
            }
        }
    }

    /// Admission without flow control: only requests below priority 0 are shed.
    pub(super) fn admit(
        &self,
        now: Instant,
        request: &InferenceRequest,
        snapshot: &Snapshot,
        candidates: &[u32],
    ) -> Result<(), Rejection> {
        if request.objective.priority >= 0 {
            return Ok(());
        }
        if self.saturation.saturation(now, snapshot, candidates) < 1.0 {
            return Ok(());
        }
        Err(Rejection::new(
            ErrorCode::ResourceExhausted,
            "system saturated, sheddable request dropped",
        ))
    }
}
