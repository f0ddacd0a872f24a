//! The model a client named and the one the engine is asked for.

use std::sync::Arc;

use llmd_epp_api::{ErrorCode, Headers, Rejection};
use llmd_openai::header;

use super::intake::Parsed;
use crate::traffic::{Rewritten, TrafficRules};

/// The names of one request; both empty for bodies that name none by their kind.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) incoming: Arc<str>,
    pub(super) target: Arc<str>,
    /// The object whose rule chose the target.
    pub(super) rewritten_by: Option<Arc<str>>,
}

/// Finds the names. The rewrite header
/// comes before the body's name, a rewrite rule for the body's name before both (llm-d-router).
pub(super) fn of(parsed: &Parsed, headers: &Headers, traffic: &TrafficRules) -> Result<Names, Rejection> {
    if !parsed.has_model {
        return Ok(Names::default());
    }
    let incoming = parsed.facts.model.as_ref().map_or("", |model| &model.value);
    let asked = header::canonical_or_alias(header::MODEL_NAME_REWRITE, |name| headers.get(name))
        .filter(|name| !name.is_empty())
        .unwrap_or(incoming);
    if parsed.facts.model.is_none() || asked.is_empty() {
        return Err(Rejection::new(
            ErrorCode::BadRequest,
            "model not found in request body",
        ));
    }
    let incoming: Arc<str> = incoming.into();
    let (target, rewritten_by) = match traffic.rewrite(&incoming) {
        Some(Rewritten { by, target }) => (target, Some(by)),
        None if asked == &*incoming => (Arc::clone(&incoming), None),
        None => (asked.into(), None),
    };
    Ok(Names {
        incoming,
        target,
        rewritten_by,
    })
}
