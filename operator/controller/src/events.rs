//! Kubernetes events: on a change, never per reconcile.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

/// Longest note that the API takes, in bytes.
const LONGEST_NOTE: usize = 1024;

/// How long a reconcile waits for an event.
const DEADLINE: Duration = Duration::from_secs(2);

/// Publishes events in the operator's name.
#[derive(Clone)]
pub(crate) struct Events(Recorder);

impl Events {
    pub(crate) fn new(client: Client, instance: String) -> Self {
        let reporter = Reporter {
            controller: "llmd-operator".to_owned(),
            instance: Some(instance),
        };
        Self(Recorder::new(client, reporter))
    }

    /// Something happened as it should.
    pub(crate) async fn normal(&self, on: &ObjectReference, reason: &str, action: &str, note: String) {
        self.publish(EventType::Normal, on, reason, action, note).await;
    }

    /// Something needs a look.
    pub(crate) async fn warning(&self, on: &ObjectReference, reason: &str, action: &str, note: String) {
        self.publish(EventType::Warning, on, reason, action, note).await;
    }

    async fn publish(&self, kind: EventType, on: &ObjectReference, reason: &str, action: &str, note: String) {
        let mut note = note;
        while note.len() > LONGEST_NOTE {
            note.pop();
        }
        let event = Event {
            type_: kind,
            reason: reason.to_owned(),
            note: Some(note),
            action: action.to_owned(),
            secondary: None,
        };
        // An event is news, not state: a lost one is not worth a failed reconcile, nor one that waits while
        // the client repeats what a busy API server puts off.
        match tokio::time::timeout(DEADLINE, self.0.publish(&event, on)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, reason, "event not published"),
            Err(_) => tracing::debug!(reason, "event not published in time"),
        }
    }
}
