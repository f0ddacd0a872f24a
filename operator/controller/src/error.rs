//! Why a reconcile did not finish.

/// An error of one reconcile; the resource is tried again with back-off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReconcileError {
    /// The API server did not do what was asked.
    #[error("{action} {kind} {name}: {source}")]
    Api {
        /// What was asked, such as `apply`.
        action: &'static str,
        /// Kind of the object.
        kind: String,
        /// Its name.
        name: String,
        /// The answer.
        source: Box<kube::Error>,
    },
    /// One look took too long.
    #[error("the API server did not answer in time")]
    Deadline,
}

impl ReconcileError {
    pub(crate) fn api(
        action: &'static str,
        kind: impl Into<String>,
        name: impl Into<String>,
        source: kube::Error,
    ) -> Self {
        Self::Api {
            action,
            kind: kind.into(),
            name: name.into(),
            source: Box::new(source),
        }
    }

    /// Label of the error metric.
    pub(crate) fn reason(&self) -> &'static str {
        let Self::Api { source, .. } = self else {
            return "unreachable";
        };
        match &**source {
            kube::Error::Api(status) if status.is_forbidden() => "forbidden",
            kube::Error::Api(status) if status.is_conflict() => "conflict",
            kube::Error::Api(_) => "refused",
            _ => "unreachable",
        }
    }
}
