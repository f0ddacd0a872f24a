//! Events about a deployment, its objects and its pods.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Event;
use kube::api::{Api, ListParams};
use serde::Serialize;

use super::{Session, api_failure, is_forbidden};
use crate::exit::Failure;

/// Most events shown.
const MOST: usize = 50;

/// One event, the newest last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Happening {
    /// When it was seen last, RFC 3339.
    pub(crate) time: String,
    /// `Normal` or `Warning`.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) reason: String,
    /// `Kind/name`.
    pub(crate) object: String,
    pub(crate) message: String,
    /// How often it was seen.
    pub(crate) count: i32,
}

/// Events about the named objects, by time; at most fifty. None when the user may not list events.
pub(crate) async fn about(
    session: &Session,
    objects: &BTreeSet<(String, String)>,
) -> Result<Vec<Happening>, Failure> {
    let api: Api<Event> = Api::namespaced(session.client.clone(), &session.namespace);
    let list = match api.list(&ListParams::default()).await {
        Ok(list) => list.items,
        Err(error) if is_forbidden(&error) => Vec::new(),
        Err(error) => return Err(api_failure("cannot list events", &error)),
    };
    let mut found: Vec<Happening> = list
        .into_iter()
        .filter_map(|event| happening(event, objects))
        .collect();
    found.sort_by(|a, b| (&a.time, &a.object, &a.reason).cmp(&(&b.time, &b.object, &b.reason)));
    found.drain(..found.len().saturating_sub(MOST));
    Ok(found)
}

fn happening(event: Event, objects: &BTreeSet<(String, String)>) -> Option<Happening> {
    let kind = event.involved_object.kind.unwrap_or_default();
    let name = event.involved_object.name.unwrap_or_default();
    if !objects.contains(&(kind.clone(), name.clone())) {
        return None;
    }
    let series = event.series;
    let time = event
        .last_timestamp
        .map(|time| time.0.to_string())
        .or_else(|| {
            Some(
                series
                    .as_ref()?
                    .last_observed_time
                    .as_ref()
                    .map(|time| time.0.to_string())
                    .unwrap_or_default(),
            )
        })
        .or_else(|| event.event_time.map(|time| time.0.to_string()))
        .unwrap_or_default();
    Some(Happening {
        time,
        kind: event.type_.unwrap_or_default(),
        reason: event.reason.unwrap_or_default(),
        object: format!("{kind}/{name}"),
        message: event.message.unwrap_or_default(),
        count: series
            .and_then(|series| series.count)
            .or(event.count)
            .unwrap_or(1),
    })
}
