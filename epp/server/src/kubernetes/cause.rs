//! What an error of the API server means, and what a person can do about it.

use kube::runtime::watcher;

/// A kind that is read, as messages name it.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Plural with its group, such as `pods` or `inferencepools.inference.networking.k8s.io/v1`.
    pub resource: String,
    /// Where it is read.
    pub namespace: String,
    /// What is done with it, as access rules say it.
    pub verbs: &'static str,
    /// What to do when the cluster does not serve the kind.
    pub when_missing: &'static str,
}

/// [`Subject::verbs`] of a watch.
pub const READ: &str = "get, list and watch";

/// Kinds of failure, coarse enough for a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The cluster does not serve the kind.
    NotServed,
    /// Access rules deny it.
    Forbidden,
    /// The credentials are not accepted.
    Unauthorized,
    /// No answer.
    Unreachable,
    /// An object cannot be read.
    Undecodable,
    /// Anything else.
    Other,
}

impl Cause {
    /// The metric label `reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotServed => "not_served",
            Self::Forbidden => "forbidden",
            Self::Unauthorized => "unauthorized",
            Self::Unreachable => "unreachable",
            Self::Undecodable => "undecodable",
            Self::Other => "other",
        }
    }

    /// Sorts an error of the client.
    pub fn of(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => match status.code {
                404 => Self::NotServed,
                403 => Self::Forbidden,
                401 => Self::Unauthorized,
                _ => Self::Other,
            },
            kube::Error::SerdeError(_) => Self::Undecodable,
            kube::Error::HyperError(_) | kube::Error::Service(_) | kube::Error::ReadEvents(_) => {
                Self::Unreachable
            }
            _ => Self::Other,
        }
    }
}

/// The cause of a watch's error, and one line that names the fix.
pub fn explain(subject: &Subject, error: &watcher::Error) -> (Cause, String) {
    let client = match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => error,
        watcher::Error::WatchError(status) if status.code == 403 => {
            return (Cause::Forbidden, forbidden(subject, &status.message));
        }
        watcher::Error::WatchError(_) | watcher::Error::NoResourceVersion => {
            return (
                Cause::Other,
                format!("{} cannot be watched: {error}", subject.resource),
            );
        }
    };
    explain_client(subject, client)
}

/// As [`explain`], for an error of the client itself.
pub fn explain_client(subject: &Subject, error: &kube::Error) -> (Cause, String) {
    let Subject {
        resource,
        when_missing,
        ..
    } = subject;
    let cause = Cause::of(error);
    let text = match (cause, error) {
        (Cause::NotServed, _) => format!("this cluster does not serve {resource}: {when_missing}"),
        (Cause::Forbidden, kube::Error::Api(status)) => forbidden(subject, &status.message),
        (Cause::Unauthorized, _) => {
            "the API server does not accept our credentials: check the pod's ServiceAccount and its token"
                .to_owned()
        }
        (Cause::Unreachable, _) => format!("the API server cannot be reached: {}", innermost(error)),
        _ => format!("{resource} cannot be read: {}", innermost(error)),
    };
    (cause, text)
}

fn forbidden(subject: &Subject, message: &str) -> String {
    let Subject {
        resource,
        namespace,
        verbs,
        ..
    } = subject;
    format!(
        "access to {resource} in namespace '{namespace}' is denied: allow {verbs} in a Role and bind it to the picker's ServiceAccount ({message})"
    )
}

/// The last source of an error: the outer ones say only which layer it passed.
pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn subject() -> Subject {
        Subject {
            resource: "inferencepools.inference.networking.k8s.io/v1".to_owned(),
            namespace: "serving".to_owned(),
            verbs: READ,
            when_missing: "install it",
        }
    }

    fn api(code: u16, message: &str) -> watcher::Error {
        let status = Status::failure(message, "").with_code(code);
        watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status)))
    }

    #[test]
    fn each_cause_names_its_fix() {
        for (error, cause, words) in [
            (api(404, "404 page not found"), Cause::NotServed, "install it"),
            (
                api(403, "no access"),
                Cause::Forbidden,
                "namespace 'serving' is denied",
            ),
            (api(401, "Unauthorized"), Cause::Unauthorized, "ServiceAccount"),
            (api(500, "boom"), Cause::Other, "boom"),
        ] {
            let (found, text) = explain(&subject(), &error);
            assert_eq!(found, cause);
            assert!(text.contains(words), "{text}");
        }
    }

    #[test]
    fn an_api_server_that_is_away_is_unreachable() {
        let refused = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "connection refused");
        let error = watcher::Error::WatchStartFailed(kube::Error::Service(Box::new(refused)));
        let (cause, text) = explain(&subject(), &error);
        assert_eq!(cause, Cause::Unreachable);
        assert!(text.contains("connection refused"), "{text}");
    }
}
